package cases

import (
	"context"
	"errors"
	"fmt"
	"io"

	"google.golang.org/protobuf/proto"

	pb "interoppeer/internal/generated/interoppb"
	"interoppeer/internal/pattern"
)

func unary(ctx context.Context, c *caller) error {
	return c.exchange(ctx, unaryKind, &pb.Script{Seed: 1, ResponseBytes: 2000}, 1, 1000)
}

func serverStream(ctx context.Context, c *caller) error {
	return c.exchange(ctx, serverKind, &pb.Script{Seed: 2, Responses: 10, ResponseBytes: 1000}, 1, 1000)
}

func clientStream(ctx context.Context, c *caller) error {
	return c.exchange(ctx, clientKind, &pb.Script{Seed: 3, ResponseBytes: 1000}, 10, 1000)
}

// bidiHalfClose wants answers to the requests, and more after their end.
func bidiHalfClose(ctx context.Context, c *caller) error {
	return c.exchange(ctx, bidiKind, &pb.Script{Seed: 4, Responses: 5, ResponseBytes: 500}, 3, 1000)
}

// bidiPingPong sends each request after the answer to the one before. The sizes
// lie around those of a chunk and of a window.
func bidiPingPong(ctx context.Context, c *caller) error {
	stream, err := c.interop.Bidi(ctx)
	if err != nil {
		return expectOK("opening the stream", err)
	}
	sizes := []uint32{1, 100, 16383, 16384, 16385, 65535, 65536, 65537, 200_000}
	for number := range uint32(100) {
		size := sizes[number%uint32(len(sizes))]
		what := fmt.Sprintf("round %d", number)
		request := &pb.Request{Payload: pattern.Of(number, size)}
		if err := stream.Send(request); err != nil {
			return expectOK(what+", sending", err)
		}
		response, err := stream.Recv()
		if err != nil {
			return expectOK(what+", receiving", err)
		}
		if err := expectPattern(what, number, size, response.GetPayload()); err != nil {
			return err
		}
	}
	_ = stream.CloseSend()
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("after the last round: expected the end, got %s", describe(err))
	}
	return nil
}

// unaryEmptyMessage sends and wants messages that take no bytes at all.
func unaryEmptyMessage(ctx context.Context, c *caller) error {
	response, err := c.interop.Unary(ctx, &pb.Request{})
	if err != nil {
		return expectOK("a call without bytes", err)
	}
	return expect("size of the response", 0, proto.Size(response))
}

// streamEmptyMessages counts messages that take no bytes, in both directions.
func streamEmptyMessages(ctx context.Context, c *caller) error {
	if err := c.exchange(ctx, clientKind, &pb.Script{}, 10, 0); err != nil {
		return err
	}
	if err := c.exchange(ctx, serverKind, &pb.Script{Responses: 10}, 1, 0); err != nil {
		return err
	}
	return c.exchange(ctx, bidiKind, &pb.Script{Responses: 10}, 10, 0)
}

// emptyStream wants streams without messages to end well.
func emptyStream(ctx context.Context, c *caller) error {
	if got := c.call(ctx, serverKind, requests(&pb.Script{}, 1, 10)...); got.err != nil || len(got.responses) != 0 {
		return fmt.Errorf("no responses: expected OK and 0, got %s and %d", describe(got.err), len(got.responses))
	}
	got := c.call(ctx, clientKind)
	if err := expectOK("no requests", got.err); err != nil {
		return err
	}
	if err := expect("no requests: responses", 1, len(got.responses)); err != nil {
		return err
	}
	if err := expectObserved("no requests", 0, 0, got.responses[0].GetObserved()); err != nil {
		return err
	}
	if got := c.call(ctx, bidiKind); got.err != nil || len(got.responses) != 0 {
		return fmt.Errorf("no messages: expected OK and 0, got %s and %d", describe(got.err), len(got.responses))
	}
	return nil
}
