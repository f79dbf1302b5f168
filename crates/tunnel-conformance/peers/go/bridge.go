package main

import (
	"context"
	"errors"
	"io"
	"math"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
)

// The metadata with which a call names its tunnel and its backend. The bridge
// that acts on an entry removes it.
const (
	tunnelKey  = "x-tunnel"
	backendKey = "x-backend"
)

// timeoutKey has the timeout of a plain call, in the form of grpc-timeout. Under
// that name the plain hop would enforce it, and not the tunnel.
const timeoutKey = "x-timeout"

// window is large enough that a stream that is not read never stops the others of
// its plain connection.
const window = 1 << 20

// message holds any message: its bytes are unknown fields.
type message = emptypb.Empty

// inbound is the side of a call that receives its requests.
type inbound interface {
	Context() context.Context
	SendHeader(metadata.MD) error
	SendMsg(any) error
	RecvMsg(any) error
	SetTrailer(metadata.MD)
}

// forward makes a call again on another channel, and returns how it ends.
func forward(in inbound, out grpc.ClientConnInterface, method string, desc *grpc.StreamDesc, drop string) error {
	md, _ := metadata.FromIncomingContext(in.Context())
	ctx, cancel := withTimeout(metadata.NewOutgoingContext(in.Context(), onward(md, drop)), md)
	defer cancel()
	stream, err := out.NewStream(ctx, desc, method)
	if err != nil {
		return err
	}
	go sendRequests(in, stream, cancel)
	if header, err := stream.Header(); err == nil && header != nil {
		if err := in.SendHeader(onward(header, drop)); err != nil {
			return err
		}
	}
	err = copyResponses(in, stream, desc)
	// A tunnel's stream tells its end before it has its trailers; its context ends after that.
	<-stream.Context().Done()
	in.SetTrailer(onward(stream.Trailer(), drop))
	return err
}

func withTimeout(ctx context.Context, md metadata.MD) (context.Context, context.CancelFunc) {
	text := strings.Join(md.Get(timeoutKey), "")
	if text == "" {
		return context.WithCancel(ctx)
	}
	units := map[byte]time.Duration{
		'H': time.Hour, 'M': time.Minute, 'S': time.Second,
		'm': time.Millisecond, 'u': time.Microsecond, 'n': time.Nanosecond,
	}
	count, _ := strconv.Atoi(text[:len(text)-1])
	unit := units[text[len(text)-1]]
	if time.Duration(count) > math.MaxInt64/unit {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, time.Duration(count)*unit)
}

func sendRequests(in inbound, out grpc.ClientStream, cancel context.CancelFunc) {
	for {
		request := &message{}
		if err := in.RecvMsg(request); errors.Is(err, io.EOF) {
			_ = out.CloseSend()
			return
		} else if err != nil {
			cancel()
			return
		}
		// If sending fails, receiving tells why.
		if out.SendMsg(request) != nil {
			return
		}
	}
}

func copyResponses(in inbound, out grpc.ClientStream, desc *grpc.StreamDesc) error {
	for {
		response := &message{}
		if err := out.RecvMsg(response); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := in.SendMsg(response); err != nil {
			return err
		}
		if !desc.ServerStreams {
			return nil
		}
	}
}

// onward returns the metadata that the next hop is to get. What gRPC itself adds at
// each hop is left out.
func onward(md metadata.MD, drop string) metadata.MD {
	md = md.Copy()
	for _, key := range []string{
		drop, timeoutKey, "content-type", "user-agent", "te",
		"grpc-timeout", "grpc-accept-encoding", "grpc-status-details-bin",
	} {
		md.Delete(key)
	}
	for key := range md {
		if strings.HasPrefix(key, ":") {
			delete(md, key)
		}
	}
	return md
}

// named returns the value with which a call names its next hop.
func named(ctx context.Context, key, otherwise string) (string, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	if values := md.Get(key); len(values) > 0 {
		return values[0], nil
	}
	if otherwise == "" {
		return "", status.Errorf(codes.FailedPrecondition, "the call has no %s, and no option gives one", key)
	}
	return otherwise, nil
}

// plainServer accepts calls of any method, and makes each on the channel that is
// found for it.
func plainServer(key string, find func(context.Context) (grpc.ClientConnInterface, error)) *grpc.Server {
	return grpc.NewServer(
		grpc.MaxRecvMsgSize(math.MaxInt32),
		grpc.MaxHeaderListSize(math.MaxUint32),
		grpc.InitialConnWindowSize(window),
		grpc.UnknownServiceHandler(func(_ any, in grpc.ServerStream) error {
			out, err := find(in.Context())
			if err != nil {
				return err
			}
			method, _ := grpc.MethodFromServerStream(in)
			return forward(in, out, method, kindOf(method), key)
		}))
}

// dial prepares a connection, which is made when it is first needed.
func dial(address string) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:"+address,
		grpc.WithMaxHeaderListSize(math.MaxUint32),
		grpc.WithInitialConnWindowSize(window),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32)),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
}
