package cases

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"interoppeer/internal/generated/echopb"
	pb "interoppeer/internal/generated/interoppb"
	"interoppeer/internal/pattern"
)

// caller is what a case calls with.
type caller struct {
	name    string
	conn    grpc.ClientConnInterface
	interop pb.InteropServiceClient
	echo    echopb.EchoServiceClient
	named   atomic.Int64
}

// nameCall returns a name for a call that no other call has.
func (c *caller) nameCall() string {
	return fmt.Sprintf("%s-%d-%x", c.name, c.named.Add(1), rand.Uint64())
}

// kind is one of the four kinds of call.
type kind struct {
	name   string
	method string
	desc   grpc.StreamDesc
}

var (
	unaryKind  = kind{name: "unary", method: pb.InteropService_Unary_FullMethodName}
	serverKind = kind{
		"server stream", pb.InteropService_ServerStream_FullMethodName,
		grpc.StreamDesc{StreamName: "ServerStream", ServerStreams: true},
	}
	clientKind = kind{
		"client stream", pb.InteropService_ClientStream_FullMethodName,
		grpc.StreamDesc{StreamName: "ClientStream", ClientStreams: true},
	}
	bidiKind = kind{
		"bidi", pb.InteropService_Bidi_FullMethodName,
		grpc.StreamDesc{StreamName: "Bidi", ClientStreams: true, ServerStreams: true},
	}
	allKinds = []kind{unaryKind, serverKind, clientKind, bidiKind}
)

// outcome is everything that a caller learns of a call.
type outcome struct {
	headers   metadata.MD
	responses []*pb.Response
	trailers  metadata.MD
	err       error
}

// requests makes the messages of a call: patterns of a size, the script in front.
func requests(script *pb.Script, count, size uint32) []*pb.Request {
	made := make([]*pb.Request, count)
	for number := range made {
		made[number] = &pb.Request{Payload: pattern.Of(script.GetSeed()+uint32(number), size)}
	}
	made[0].Script = script
	return made
}

// call sends all requests, and then reads all responses, of which both are few.
// Of a unary call it tells no trailers.
func (c *caller) call(ctx context.Context, k kind, requests ...*pb.Request) outcome {
	if k.method == unaryKind.method {
		return c.callUnary(ctx, k.method, requests[0])
	}
	return c.callStream(ctx, k, requests...)
}

func (c *caller) callUnary(ctx context.Context, method string, request *pb.Request) outcome {
	var got outcome
	response := &pb.Response{}
	got.err = c.conn.Invoke(ctx, method, request, response, grpc.Header(&got.headers))
	if got.err == nil {
		got.responses = append(got.responses, response)
	}
	return got
}

// callStream makes a call of any kind as a stream, and tells its trailers too.
func (c *caller) callStream(ctx context.Context, k kind, requests ...*pb.Request) outcome {
	stream, err := c.conn.NewStream(ctx, &k.desc, k.method)
	if err != nil {
		return outcome{err: err}
	}
	for _, request := range requests {
		// Where sending fails, receiving tells why.
		if stream.SendMsg(request) != nil {
			break
		}
	}
	_ = stream.CloseSend()

	var got outcome
	got.headers, _ = stream.Header()
	for {
		response := &pb.Response{}
		if err := stream.RecvMsg(response); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			got.err = err
			break
		}
		got.responses = append(got.responses, response)
	}
	// The library tells the end before it notes the trailers, and gives up the
	// stream after that. Of a unary call nothing tells when.
	select {
	case <-stream.Context().Done():
	case <-ctx.Done():
	}
	got.trailers = stream.Trailer()
	return got
}

// exchange makes a call that is to succeed, and checks all that comes of it.
func (c *caller) exchange(ctx context.Context, k kind, script *pb.Script, count, size uint32) error {
	script.Observe = true
	got := c.call(ctx, k, requests(script, count, size)...)
	if err := expectOK(k.name, got.err); err != nil {
		return err
	}
	echoed, scripted := uint32(0), uint32(1)
	observed := count
	switch k.method {
	case serverKind.method:
		scripted = script.GetResponses()
	case bidiKind.method:
		echoed, scripted = count, script.GetResponses()
		observed = 1 // the first response leaves before the second request is read
	}
	if err := expect(k.name+": responses", int(echoed+scripted), len(got.responses)); err != nil {
		return err
	}
	for i, response := range got.responses {
		number, bytes := uint32(i), size
		if number >= echoed {
			number, bytes = number-echoed, script.GetResponseBytes()
		}
		what := fmt.Sprintf("%s: response %d", k.name, i)
		if err := expectPattern(what, script.GetSeed()+number, bytes, response.GetPayload()); err != nil {
			return err
		}
	}
	return expectObserved(k.name, observed, uint64(observed)*uint64(size), got.responses[0].GetObserved())
}

// usable checks that the tunnel still works.
func (c *caller) usable(ctx context.Context) error {
	if err := c.exchange(ctx, unaryKind, &pb.Script{ResponseBytes: 10}, 1, 10); err != nil {
		return fmt.Errorf("a call afterwards: %w", err)
	}
	return nil
}
