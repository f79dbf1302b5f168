package main

import (
	"context"
	"errors"
	"io"
	"time"

	"interoppeer/internal/generated/benchpb"
)

// looks returns the number of messages between two looks at the clock. Small messages share one
// look.
func looks(size int) int {
	return min(max(64*1024/max(size, 1), 1), 64)
}

// download reads server streams until the time is up.
func (w *worker) download(asked *job) (*measured, error) {
	start := time.Now()
	return count(start, asked, func(ctx context.Context) (uint64, error) {
		request := &benchpb.DownloadRequest{Size: uint32(asked.Size), Count: endless}
		blobs, err := w.client.Download(ctx, request)
		if err != nil {
			return 0, err
		}
		for n, every := 1, looks(asked.Size); ; n++ {
			blob, err := blobs.Recv()
			if err != nil {
				return 0, err
			}
			if len(blob.GetData()) != asked.Size {
				return 0, errSize
			}
			if n%every == 0 && time.Since(start) >= asked.length() {
				return uint64(n), nil
			}
		}
	})
}

// upload writes client streams until the time is up, and waits until all messages have arrived.
func (w *worker) upload(asked *job) (*measured, error) {
	start := time.Now()
	return count(start, asked, func(ctx context.Context) (uint64, error) {
		blobs, err := w.client.Upload(ctx)
		if err != nil {
			return 0, err
		}
		blob := newBlob(asked.Size)
		every := looks(asked.Size)
		for n := 0; n == 0 || n%every != 0 || time.Since(start) < asked.length(); n++ {
			if err := blobs.Send(blob); errors.Is(err, io.EOF) {
				break // CloseAndRecv returns the reason
			} else if err != nil {
				return 0, err
			}
		}
		total, err := blobs.CloseAndRecv()
		return total.GetBytes() / uint64(max(asked.Size, 1)), err
	})
}

// count runs streams in parallel and sums the number of messages that each one carried.
func count(
	start time.Time, asked *job, run func(context.Context) (uint64, error),
) (*measured, error) {
	counts, err := together(asked.AtOnce, func(ctx context.Context, _ int) (uint64, error) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		return run(ctx)
	})
	if err != nil {
		return nil, err
	}
	return &measured{Count: sum(counts), Seconds: time.Since(start).Seconds()}, nil
}

func sum(counts []uint64) uint64 {
	var total uint64
	for _, each := range counts {
		total += each
	}
	return total
}
