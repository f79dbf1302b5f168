package main

import (
	"context"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"interoppeer/internal/generated/benchpb"
)

// openers is the number of streams that are opened at the same time.
const openers = 64

// held are the streams that stay open during a measurement.
type held struct {
	streams []grpc.ClientStream
	cancel  []context.CancelFunc
}

// opening opens one stream that lives as long as its context.
type opening func(context.Context) (grpc.ClientStream, error)

// holdIdle opens streams that never send.
func (w *worker) holdIdle(asked *job) (*measured, error) {
	return w.held.open(asked.Streams, func(ctx context.Context) (grpc.ClientStream, error) {
		return w.client.PingPong(ctx)
	})
}

// holdUnread opens streams of endless messages and reads none of them.
func (w *worker) holdUnread(asked *job) (*measured, error) {
	request := &benchpb.DownloadRequest{Size: uint32(asked.Size), Count: endless}
	return w.held.open(asked.Streams, func(ctx context.Context) (grpc.ClientStream, error) {
		return w.client.Download(ctx, request)
	})
}

// release cancels all held streams and waits until a call succeeds. A far end with a stream limit
// refuses calls until it has seen the streams end.
func (w *worker) release(*job) (*measured, error) {
	start := time.Now()
	count := len(w.held.streams)
	for _, cancel := range w.held.cancel {
		cancel()
	}
	w.held = held{}
	for {
		_, err := w.client.Unary(context.Background(), newBlob(16))
		if err == nil {
			break
		}
		if status.Code(err) != codes.ResourceExhausted || time.Since(start) > patience {
			return nil, err
		}
		time.Sleep(time.Millisecond)
	}
	return &measured{Count: uint64(count), Seconds: time.Since(start).Seconds()}, nil
}

// open adds streams and returns when all of their headers have arrived.
func (h *held) open(streams int, open opening) (*measured, error) {
	start := time.Now()
	ctx, cancel := context.WithCancel(context.Background())
	opened, err := together(openers, func(_ context.Context, opener int) ([]grpc.ClientStream, error) {
		var opened []grpc.ClientStream
		for n := opener; n < streams; n += openers {
			stream, err := open(ctx)
			if err == nil {
				err = begun(stream)
			}
			if err != nil {
				cancel() // also for the other openers
				return nil, err
			}
			opened = append(opened, stream)
		}
		return opened, nil
	})
	if err != nil {
		return nil, err
	}
	seconds := time.Since(start).Seconds()
	for _, stream := range slices.Concat(opened...) {
		if err := begun(stream); err != nil {
			cancel()
			return nil, err
		}
	}
	before := len(h.streams)
	h.streams = append(h.streams, slices.Concat(opened...)...)
	h.cancel = append(h.cancel, cancel)
	return &measured{Count: uint64(len(h.streams) - before), Seconds: seconds}, nil
}

// begun waits for the headers of a stream. Header does not report a refusal in either library. The
// context of a refused stream is done, and RecvMsg returns the error.
func begun(stream grpc.ClientStream) error {
	_, err := stream.Header()
	if err == nil && stream.Context().Err() != nil {
		err = stream.RecvMsg(&benchpb.Blob{})
	}
	return err
}
