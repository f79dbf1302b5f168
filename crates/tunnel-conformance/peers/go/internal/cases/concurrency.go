package cases

import (
	"context"
	"errors"
	"fmt"
	"time"

	pb "interoppeer/internal/generated/interoppb"
)

// concurrentCalls makes many calls of all kinds at once, each of which takes a moment.
func concurrentCalls(ctx context.Context, c *caller) error {
	const calls = 200
	ended := make(chan error, calls)
	for number := range uint32(calls) {
		go func() {
			k := allKinds[number%4]
			script := &pb.Script{Seed: number, DelayMs: 50, Responses: 5, ResponseBytes: 100 + number}
			count := uint32(1)
			if k.desc.ClientStreams {
				count = 5
			}
			if err := c.exchange(ctx, k, script, count, 200+number); err != nil {
				ended <- fmt.Errorf("call %d: %w", number, err)
				return
			}
			ended <- nil
		}()
	}
	var failures []error
	for range calls {
		if err := <-ended; err != nil {
			failures = append(failures, err)
		}
	}
	if len(failures) > 0 {
		return fmt.Errorf("expected %d calls to succeed, but %d failed, among them %w", calls, len(failures), failures[0])
	}
	return nil
}

// slowReader lets streams wait that are far larger than a window, each way, and
// wants other calls to go on meanwhile.
func slowReader(ctx context.Context, c *caller) error {
	script := &pb.Script{Seed: 8, Responses: 64, ResponseBytes: 65536}
	stream, err := c.interop.ServerStream(ctx, &pb.Request{Script: script})
	if err != nil {
		return expectOK("opening the stream", err)
	}
	if err := c.beside(ctx, "a response stream that nobody reads"); err != nil {
		return err
	}
	if err := readScripted(stream.Recv, script, 0); err != nil {
		return fmt.Errorf("the response stream: %w", err)
	}

	uploaded := make(chan error, 1)
	go func() { uploaded <- c.upload(ctx, &pb.Script{Seed: 9, ReadDelayMs: 500}, 64, 65536) }()
	return errors.Join(c.beside(ctx, "a request stream that nobody reads"), <-uploaded)
}

// beside makes some calls, which have less time than the case.
func (c *caller) beside(ctx context.Context, what string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for number := range 20 {
		if err := c.exchange(ctx, unaryKind, &pb.Script{ResponseBytes: 1000}, 1, 1000); err != nil {
			return fmt.Errorf("call %d beside %s: %w", number, what, err)
		}
	}
	return nil
}

func manyCallsInARow(ctx context.Context, c *caller) error {
	for number := range uint32(1000) {
		script := &pb.Script{Seed: number, ResponseBytes: number % 100}
		if err := c.exchange(ctx, unaryKind, script, 1, 100-number%100); err != nil {
			return fmt.Errorf("call %d: %w", number, err)
		}
	}
	return nil
}
