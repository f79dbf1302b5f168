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

// openers is how many streams are being opened at any moment.
const openers = 64

// held are the streams that stay open beside what is measured.
type held struct {
	streams []grpc.ClientStream
	cancel  []context.CancelFunc
}

// opening opens one stream that lives as long as its context.
type opening func(context.Context) (grpc.ClientStream, error)

// holdIdle opens streams on which nothing is ever sent.
func (w *worker) holdIdle(asked *job) (*measured, error) {
	return w.held.open(asked.Streams, func(ctx context.Context) (grpc.ClientStream, error) {
		return w.client.PingPong(ctx)
	})
}

// holdUnread opens streams of endless messages, and reads none of them.
func (w *worker) holdUnread(asked *job) (*measured, error) {
	request := &benchpb.DownloadRequest{Size: uint32(asked.Size), Count: endless}
	return w.held.open(asked.Streams, func(ctx context.Context) (grpc.ClientStream, error) {
		return w.client.Download(ctx, request)
	})
}

// release drops all, and waits until a call gets through. Where the far end has a limit of streams,
// it refuses calls until it has heard of the end of those that filled it.
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

// open adds so many streams, and returns when the headers of all of them have come.
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

// begun waits for the headers of a stream. Neither library says by that whether it was refused; but
// the context of a stream that is over is too, and then reading tells why.
func begun(stream grpc.ClientStream) error {
	_, err := stream.Header()
	if err == nil && stream.Context().Err() != nil {
		err = stream.RecvMsg(&benchpb.Blob{})
	}
	return err
}
