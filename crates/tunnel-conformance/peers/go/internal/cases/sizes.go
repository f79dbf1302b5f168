package cases

import (
	"context"
	"errors"
	"fmt"
	"io"

	pb "interoppeer/internal/generated/interoppb"
)

const (
	mebibyte = 1 << 20
	// So many messages of a mebibyte are a large stream.
	largeCount = 16
)

func unaryLarge(ctx context.Context, c *caller) error {
	return c.exchange(ctx, unaryKind, &pb.Script{Seed: 5, ResponseBytes: 3 * mebibyte}, 1, 3*mebibyte)
}

func serverStreamLarge(ctx context.Context, c *caller) error {
	script := &pb.Script{Seed: 6, Responses: largeCount, ResponseBytes: mebibyte}
	stream, err := c.interop.ServerStream(ctx, &pb.Request{Script: script})
	if err != nil {
		return expectOK("opening the stream", err)
	}
	return readScripted(stream.Recv, script, 0)
}

// readScripted reads the responses of a script from one on, and the end.
func readScripted(receive func() (*pb.Response, error), script *pb.Script, from uint32) error {
	for number := from; number < script.GetResponses(); number++ {
		what := fmt.Sprintf("response %d of %d", number, script.GetResponses())
		response, err := receive()
		if err != nil {
			return expectOK(what, err)
		}
		if err := expectPattern(what, script.GetSeed()+number, script.GetResponseBytes(), response.GetPayload()); err != nil {
			return err
		}
	}
	if _, err := receive(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("after the last response: expected the end, got %s", describe(err))
	}
	return nil
}

func clientStreamLarge(ctx context.Context, c *caller) error {
	return c.upload(ctx, &pb.Script{Seed: 7}, largeCount, mebibyte)
}

// upload sends a stream of requests and checks that they arrived.
func (c *caller) upload(ctx context.Context, script *pb.Script, count, size uint32) error {
	stream, err := c.interop.ClientStream(ctx)
	if err != nil {
		return expectOK("opening the stream", err)
	}
	for number, request := range requests(script, count, size) {
		if err := stream.Send(request); err != nil && !errors.Is(err, io.EOF) {
			return expectOK(fmt.Sprintf("sending request %d of %d", number, count), err)
		}
	}
	response, err := stream.CloseAndRecv()
	if err != nil {
		return expectOK("the upload", err)
	}
	return expectObserved("the upload", count, uint64(count)*uint64(size), response.GetObserved())
}
