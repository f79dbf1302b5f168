package cases

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"

	pb "interoppeer/internal/generated/interoppb"
)

const (
	// How long handlers would go on if nobody told them to stop.
	forever = 120_000
	// How long they have to begin, or to stop.
	soon = 5_000
)

// watch asks the handler of a call where it stands.
func (c *caller) watch(ctx context.Context, call string, until pb.WatchRequest_Until) (pb.WatchResponse_State, error) {
	answer, err := c.interop.Watch(ctx, &pb.WatchRequest{Call: call, Until: until, WaitMs: soon})
	if err != nil {
		return 0, fmt.Errorf("watching the call: %w", expectOK("a call beside it", err))
	}
	return answer.GetState(), nil
}

// stopped checks that a handler was told to stop, and that the tunnel still works.
func (c *caller) stopped(ctx context.Context, call string) error {
	state, err := c.watch(ctx, call, pb.WatchRequest_ENDED)
	if err != nil {
		return err
	}
	if err := expect("the handler", pb.WatchResponse_CANCELLED, state); err != nil {
		return err
	}
	return c.usable(ctx)
}

func cancelUnary(ctx context.Context, c *caller) error {
	script := &pb.Script{Call: c.nameCall(), DelayMs: forever}
	cancelled, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- c.call(cancelled, unaryKind, requests(script, 1, 10)...).err }()

	state, err := c.watch(ctx, script.GetCall(), pb.WatchRequest_BEGUN)
	if err != nil {
		return err
	}
	if err := expect("the handler before", pb.WatchResponse_RUNNING, state); err != nil {
		return err
	}
	cancel()
	if err := expectCode("the cancelled call", codes.Canceled, <-ended); err != nil {
		return err
	}
	return c.stopped(ctx, script.GetCall())
}

func cancelServerStream(ctx context.Context, c *caller) error {
	script := &pb.Script{Call: c.nameCall(), Responses: 3, ResponseBytes: 1000, LingerMs: forever}
	cancelled, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.interop.ServerStream(cancelled, &pb.Request{Script: script})
	if err != nil {
		return expectOK("opening the stream", err)
	}
	for number := range script.GetResponses() {
		what := fmt.Sprintf("response %d", number)
		response, err := stream.Recv()
		if err != nil {
			return expectOK(what, err)
		}
		if err := expectPattern(what, number, 1000, response.GetPayload()); err != nil {
			return err
		}
	}
	cancel()
	_, err = stream.Recv()
	if err := expectCode("the cancelled call", codes.Canceled, err); err != nil {
		return err
	}
	return c.stopped(ctx, script.GetCall())
}

// cancelBidi gives up while the handler waits for another request.
func cancelBidi(ctx context.Context, c *caller) error {
	script := &pb.Script{Call: c.nameCall()}
	cancelled, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.interop.Bidi(cancelled)
	if err != nil {
		return expectOK("opening the stream", err)
	}
	for number, request := range requests(script, 3, 1000) {
		what := fmt.Sprintf("round %d", number)
		if err := stream.Send(request); err != nil {
			return expectOK(what+", sending", err)
		}
		response, err := stream.Recv()
		if err != nil {
			return expectOK(what+", receiving", err)
		}
		if err := expectPattern(what, uint32(number), 1000, response.GetPayload()); err != nil {
			return err
		}
	}
	cancel()
	_, err = stream.Recv()
	if err := expectCode("the cancelled call", codes.Canceled, err); err != nil {
		return err
	}
	return c.stopped(ctx, script.GetCall())
}

// deadline wants both ends of a call to stop when its time is up.
func deadline(ctx context.Context, c *caller) error {
	script := &pb.Script{Call: c.nameCall(), DelayMs: forever}
	limited, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	got := c.call(limited, unaryKind, requests(script, 1, 10)...)
	if err := expectCode("the call", codes.DeadlineExceeded, got.err); err != nil {
		return err
	}
	return c.stopped(ctx, script.GetCall())
}

// deadlineTravels wants the handler to know of the deadline.
func deadlineTravels(ctx context.Context, c *caller) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	response, err := c.interop.Unary(ctx, &pb.Request{Script: &pb.Script{Observe: true}})
	if err != nil {
		return expectOK("the call", err)
	}
	seen := response.GetObserved()
	if !seen.GetDeadline() {
		return fmt.Errorf("the handler: expected a deadline, got none")
	}
	if left := seen.GetDeadlineMs(); left == 0 || left > 20_000 {
		return fmt.Errorf("the handler: expected a deadline at most 20000 ms away, got %d ms", left)
	}
	return nil
}
