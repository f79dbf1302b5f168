package handler

import (
	"context"
	"time"

	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"interoppeer/internal/entry"
	pb "interoppeer/internal/generated/interoppb"
	"interoppeer/internal/pattern"
)

// call is one call that follows a script.
type call struct {
	ctx      context.Context
	script   *pb.Script
	records  *records
	requests uint32
	bytes    uint64
	damaged  uint64
	sent     uint32
}

// scripted marks the failures that the script asks for.
type scripted struct{ error }

// GRPCStatus lets a wrapped status be found as if it were bare.
func (s scripted) GRPCStatus() *status.Status { return status.Convert(s.error) }

// begin starts a call with its first request; nil where there is none.
func (s *Interop) begin(ctx context.Context, first *pb.Request) *call {
	c := &call{ctx: ctx, script: first.GetScript(), records: s.records}
	c.records.update(c.script.GetCall(), func(record *pb.WatchResponse) {
		record.State = pb.WatchResponse_RUNNING
	})
	if first != nil {
		c.received(first)
	}
	return c
}

// received takes note of a request.
func (c *call) received(request *pb.Request) {
	if !pattern.Is(c.script.GetSeed()+c.requests, request.GetPayload()) {
		c.damaged++
	}
	c.requests++
	c.bytes += uint64(len(request.GetPayload()))
	c.records.update(c.script.GetCall(), func(record *pb.WatchResponse) { record.Requests++ })
}

// prelude does what comes before the first response.
func (c *call) prelude() error {
	if trailers := c.script.GetTrailers(); len(trailers) > 0 {
		if err := grpc.SetTrailer(c.ctx, entry.ToMetadata(trailers)); err != nil {
			return err
		}
	}
	if err := c.wait(c.script.GetDelayMs()); err != nil {
		return err
	}
	if err := c.failAt(pb.Failure_BEFORE_HEADERS); err != nil {
		return err
	}
	if headers := c.script.GetHeaders(); len(headers) > 0 || c.failAt(pb.Failure_AFTER_HEADERS) != nil {
		if err := grpc.SendHeader(c.ctx, entry.ToMetadata(headers)); err != nil {
			return err
		}
	}
	return c.failAt(pb.Failure_AFTER_HEADERS)
}

// failAt returns the failure that the script has for a moment.
func (c *call) failAt(moment pb.Failure_Moment) error {
	failure := c.script.GetFailure()
	if failure == nil || failure.GetMoment() != moment {
		return nil
	}
	if moment == pb.Failure_AFTER_RESPONSES && c.sent < failure.GetAfterResponses() {
		return nil
	}
	return scripted{status.ErrorProto(&spb.Status{
		Code:    failure.GetCode(),
		Message: failure.GetMessage(),
		Details: failure.GetDetails(),
	})}
}

// wait sleeps, but not longer than the call is wanted.
func (c *call) wait(count uint32) error {
	if count == 0 {
		return nil
	}
	timer := time.NewTimer(milliseconds(count))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-c.ctx.Done():
		return c.ctx.Err()
	}
}

// scriptedResponse makes the response with a number that the script asks for.
func (c *call) scriptedResponse(number uint32) *pb.Response {
	return c.complete(&pb.Response{
		Payload: pattern.Of(c.script.GetSeed()+number, c.script.GetResponseBytes()),
	})
}

// complete adds to a response what only the first one has.
func (c *call) complete(response *pb.Response) *pb.Response {
	if c.script.GetObserve() && c.sent == 0 {
		response.Observed = c.observed()
	}
	return response
}

func (c *call) observed() *pb.Observed {
	md, _ := metadata.FromIncomingContext(c.ctx)
	seen := &pb.Observed{
		Metadata:     entry.FromMetadata(md),
		Requests:     uint64(c.requests),
		RequestBytes: c.bytes,
		Damaged:      c.damaged,
	}
	if deadline, ok := c.ctx.Deadline(); ok {
		seen.Deadline = true
		seen.DeadlineMs = uint64(max(0, time.Until(deadline).Milliseconds()))
	}
	return seen
}

// stream sends a response of several, and fails if it was the last one wanted.
func (c *call) stream(send func(*pb.Response) error, response *pb.Response) error {
	if err := send(response); err != nil {
		return err
	}
	c.answered()
	return c.failAt(pb.Failure_AFTER_RESPONSES)
}

// respond sends the responses of the script, and lingers.
func (c *call) respond(send func(*pb.Response) error) error {
	for number := range c.script.GetResponses() {
		if err := c.stream(send, c.scriptedResponse(number)); err != nil {
			return err
		}
	}
	return c.wait(c.script.GetLingerMs())
}

func (c *call) answered() {
	c.sent++
	c.records.update(c.script.GetCall(), func(record *pb.WatchResponse) { record.Responses++ })
}

// end records how the call ended, and returns what to end it with.
func (c *call) end(err error) error {
	state := pb.WatchResponse_COMPLETED
	if _, asked := err.(scripted); err != nil && !asked {
		state = pb.WatchResponse_BROKEN
		if c.ctx.Err() != nil {
			state = pb.WatchResponse_CANCELLED
		}
	}
	c.records.update(c.script.GetCall(), func(record *pb.WatchResponse) { record.State = state })
	return err
}
