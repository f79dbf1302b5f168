package handler

import (
	"context"
	"sync"
	"time"

	pb "interoppeer/internal/generated/interoppb"
)

// records keeps what is known of the calls that have a name.
type records struct {
	mu      sync.Mutex
	calls   map[string]*pb.WatchResponse
	changed chan struct{} // closed, and replaced, at every change
}

func newRecords() *records {
	return &records{calls: map[string]*pb.WatchResponse{}, changed: make(chan struct{})}
}

// update changes the record of a call and wakes whoever waits for that.
func (r *records) update(call string, change func(*pb.WatchResponse)) {
	if call == "" {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	record := r.calls[call]
	if record == nil {
		record = &pb.WatchResponse{}
		r.calls[call] = record
	}
	change(record)
	close(r.changed)
	r.changed = make(chan struct{})
}

// look returns a copy of a record, and what is closed when it may be outdated.
func (r *records) look(call string) (*pb.WatchResponse, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	known := r.calls[call]
	return &pb.WatchResponse{
		State:     known.GetState(),
		Requests:  known.GetRequests(),
		Responses: known.GetResponses(),
	}, r.changed
}

// Watch implements the service.
func (s *Interop) Watch(ctx context.Context, request *pb.WatchRequest) (*pb.WatchResponse, error) {
	timeout := time.NewTimer(milliseconds(request.GetWaitMs()))
	defer timeout.Stop()
	for {
		record, changed := s.records.look(request.GetCall())
		if reached(record.GetState(), request.GetUntil()) {
			return record, nil
		}
		select {
		case <-changed:
		case <-timeout.C:
			return record, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func reached(state pb.WatchResponse_State, until pb.WatchRequest_Until) bool {
	switch state {
	case pb.WatchResponse_UNKNOWN:
		return false
	case pb.WatchResponse_RUNNING:
		return until == pb.WatchRequest_BEGUN
	default:
		return true
	}
}

func milliseconds(count uint32) time.Duration {
	return time.Duration(count) * time.Millisecond
}
