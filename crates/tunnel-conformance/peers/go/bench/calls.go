package main

import (
	"context"
	"errors"
	"io"
	"math"
	"slices"
	"time"

	"interoppeer/internal/generated/benchpb"
)

// endless is the largest message count that a stream accepts. No measurement reaches it.
const endless = math.MaxUint32

const mib = 1 << 20

var errSize = errors.New("a message of the wrong size")

// unary measures unary calls. Each caller makes one call after another.
func (w *worker) unary(asked *job) (*measured, error) {
	return w.calls(asked.AtOnce, asked.Size, asked.length())
}

func (w *worker) calls(callers, size int, length time.Duration) (*measured, error) {
	return timed(callers, length, func(ctx context.Context) (func() error, error) {
		blob := newBlob(size)
		return func() error {
			reply, err := w.client.Unary(ctx, blob)
			if err == nil && len(reply.GetData()) != size {
				err = errSize
			}
			return err
		}, nil
	})
}

// pingPong measures round trips with one message in flight on each stream.
func (w *worker) pingPong(asked *job) (*measured, error) {
	return timed(asked.AtOnce, asked.length(), func(ctx context.Context) (func() error, error) {
		blob := newBlob(asked.Size)
		stream, err := w.client.PingPong(ctx)
		return func() error {
			if err := stream.Send(blob); err != nil {
				return err
			}
			pong, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				return errors.New("the echo ended")
			}
			if err == nil && len(pong.GetData()) != asked.Size {
				err = errSize
			}
			return err
		}, err
	})
}

// besideStream measures calls while a stream of large messages is read. It starts after the first
// message.
func (w *worker) besideStream(asked *job) (*measured, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	blobs, err := w.client.Download(ctx, &benchpb.DownloadRequest{Size: mib, Count: endless})
	if err != nil {
		return nil, err
	}
	if _, err := blobs.Recv(); err != nil {
		return nil, err
	}
	until := time.Now().Add(asked.length())
	var bytes uint64
	read := make(chan error, 1)
	go func() {
		for time.Now().Before(until) {
			blob, err := blobs.Recv()
			if err != nil {
				read <- err
				return
			}
			bytes += uint64(len(blob.GetData()))
		}
		read <- nil
	}()
	done, err := w.calls(asked.Callers, asked.Size, time.Until(until))
	if err != nil {
		return nil, err
	}
	if err := <-read; err != nil {
		return nil, err
	}
	done.BesideBytes = &bytes
	return done, nil
}

// timed runs callers in parallel until length has passed. Each caller repeats the function that
// begin returns. timed summarizes the durations.
func timed(
	callers int, length time.Duration, begin func(context.Context) (func() error, error),
) (*measured, error) {
	start := time.Now()
	times, err := together(callers, func(ctx context.Context, _ int) ([]time.Duration, error) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		turn, err := begin(ctx)
		if err != nil {
			return nil, err
		}
		var times []time.Duration
		for before := time.Now(); before.Sub(start) < length; {
			if err := turn(); err != nil {
				return nil, err
			}
			now := time.Now()
			times = append(times, now.Sub(before))
			before = now
		}
		return times, nil
	})
	if err != nil {
		return nil, err
	}
	seconds := time.Since(start).Seconds()
	all := slices.Concat(times...)
	slices.Sort(all)
	return &measured{
		Count: uint64(len(all)), Seconds: seconds,
		P50: quantile(all, 0.5), P99: quantile(all, 0.99), P999: quantile(all, 0.999),
	}, nil
}

// quantile returns the duration, in seconds, below or at which the given part of the durations
// lies.
func quantile(sorted []time.Duration, part float64) *float64 {
	if len(sorted) == 0 {
		return nil
	}
	index := max(int(math.Ceil(part*float64(len(sorted))))-1, 0)
	seconds := sorted[index].Seconds()
	return &seconds
}
