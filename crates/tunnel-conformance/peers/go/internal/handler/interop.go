// Package handler serves the test services. It knows nothing of tunnels.
package handler

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"

	"interoppeer/internal/generated/echopb"
	pb "interoppeer/internal/generated/interoppb"
)

// Interop does what the scripts of its calls say.
type Interop struct {
	pb.UnimplementedInteropServiceServer
	records *records
}

// Register adds all test services to what serves them.
func Register(registrar grpc.ServiceRegistrar) {
	pb.RegisterInteropServiceServer(registrar, &Interop{records: newRecords()})
	echopb.RegisterEchoServiceServer(registrar, echo{})
}

// Unary implements the service.
func (s *Interop) Unary(ctx context.Context, request *pb.Request) (*pb.Response, error) {
	c := s.begin(ctx, request)
	if err := c.prelude(); err != nil {
		return nil, c.end(err)
	}
	response := c.scriptedResponse(0)
	c.answered()
	return response, c.end(nil)
}

// ServerStream implements the service.
func (s *Interop) ServerStream(request *pb.Request, stream grpc.ServerStreamingServer[pb.Response]) error {
	c := s.begin(stream.Context(), request)
	if err := c.prelude(); err != nil {
		return c.end(err)
	}
	return c.end(c.respond(stream.Send))
}

// ClientStream implements the service.
func (s *Interop) ClientStream(stream grpc.ClientStreamingServer[pb.Request, pb.Response]) error {
	first, err := stream.Recv()
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	c := s.begin(stream.Context(), first)
	if err := c.prelude(); err != nil {
		return c.end(err)
	}
	if first != nil {
		if err := c.wait(c.script.GetReadDelayMs()); err != nil {
			return c.end(err)
		}
		if err := c.readAll(stream.Recv, func(*pb.Request) error { return nil }); err != nil {
			return c.end(err)
		}
	}
	response := c.scriptedResponse(0)
	response.Observed = c.observed()
	err = stream.SendAndClose(response)
	c.answered()
	return c.end(err)
}

// Bidi implements the service.
func (s *Interop) Bidi(stream grpc.BidiStreamingServer[pb.Request, pb.Response]) error {
	first, err := stream.Recv()
	if errors.Is(err, io.EOF) {
		return nil
	} else if err != nil {
		return err
	}
	c := s.begin(stream.Context(), first)
	repeat := func(request *pb.Request) error {
		return c.stream(stream.Send, c.complete(&pb.Response{Payload: request.GetPayload()}))
	}
	if err := c.prelude(); err != nil {
		return c.end(err)
	}
	if err := repeat(first); err != nil {
		return c.end(err)
	}
	if err := c.wait(c.script.GetReadDelayMs()); err != nil {
		return c.end(err)
	}
	if err := c.readAll(stream.Recv, repeat); err != nil {
		return c.end(err)
	}
	return c.end(c.respond(stream.Send))
}

// readAll does something with each request until there are no more.
func (c *call) readAll(receive func() (*pb.Request, error), do func(*pb.Request) error) error {
	for {
		request, err := receive()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		c.received(request)
		if err := do(request); err != nil {
			return err
		}
	}
}
