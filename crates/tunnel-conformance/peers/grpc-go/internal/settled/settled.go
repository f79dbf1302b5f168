// Package settled makes a tunnel's calls end at once for all who look.
//
// When a call ends, the library wakes whoever reads before it has recorded the
// trailers. Once in several hundred calls the reader is quick enough to find none,
// although they have arrived. The last thing that the library does to a call is to
// cancel its context, so that is what is waited for.
package settled

import (
	"context"
	"time"

	"google.golang.org/grpc"
)

// patience ends the wait for a call that goes on: one with a message that cannot
// be decoded.
const patience = time.Second

// Channel returns a channel whose calls have ended when they say so.
func Channel(tunnel grpc.ClientConnInterface) grpc.ClientConnInterface {
	return channel{tunnel}
}

type channel struct{ tunnel grpc.ClientConnInterface }

// Invoke implements grpc.ClientConnInterface. It is a stream with one message each
// way, as in the library; that one keeps its stream to itself.
func (c channel) Invoke(ctx context.Context, method string, request, response any, options ...grpc.CallOption) error {
	stream, err := c.NewStream(ctx, &grpc.StreamDesc{}, method, options...)
	if err != nil {
		return err
	}
	if err := stream.SendMsg(request); err != nil {
		return err
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	return stream.RecvMsg(response)
}

// NewStream implements grpc.ClientConnInterface.
func (c channel) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, options ...grpc.CallOption) (grpc.ClientStream, error) {
	inner, err := c.tunnel.NewStream(ctx, desc, method, options...)
	if err != nil {
		return nil, err
	}
	return stream{inner, desc.ServerStreams}, nil
}

type stream struct {
	grpc.ClientStream
	several bool
}

// RecvMsg implements grpc.ClientStream.
func (s stream) RecvMsg(message any) error {
	err := s.ClientStream.RecvMsg(message)
	// The only response comes when the call has ended.
	if err != nil || !s.several {
		select {
		case <-s.Context().Done():
		case <-time.After(patience):
		}
	}
	return err
}
