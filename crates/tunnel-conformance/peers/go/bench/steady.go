package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"interoppeer/internal/generated/benchpb"
)

// buckets count what arrives in each interval of time.
type buckets struct {
	start  time.Time
	length time.Duration
	counts []atomic.Uint64
}

// add counts what has just arrived. It counts nothing after the last bucket.
func (b *buckets) add(what uint64) {
	if bucket := int(time.Since(b.start) / b.length); bucket < len(b.counts) {
		b.counts[bucket].Add(what)
	}
}

// steady runs for a fixed time and returns what arrived in each bucket.
func (w *worker) steady(asked *job) (*measured, error) {
	kinds := map[string]func(context.Context, *job, *buckets) error{
		"download": w.steadyDownload,
		"upload":   w.steadyUpload,
		"unary":    w.steadyUnary,
	}
	run, known := kinds[asked.Kind]
	if !known {
		return nil, fmt.Errorf("there is no kind %q", asked.Kind)
	}
	bucketMillis := max(asked.BucketMillis, 1)
	arrived := &buckets{
		start:  time.Now(),
		length: time.Duration(bucketMillis) * time.Millisecond,
		counts: make([]atomic.Uint64, asked.Millis/bucketMillis),
	}
	until := arrived.start.Add(asked.length())
	_, err := together(asked.AtOnce, func(ctx context.Context, _ int) (struct{}, error) {
		// The context has no deadline, because a deadline would be sent to the far end.
		ctx, cancel := context.WithCancel(ctx)
		defer time.AfterFunc(time.Until(until), cancel).Stop()
		defer cancel()
		err := run(ctx, asked, arrived)
		if time.Now().Before(until) {
			return struct{}{}, fmt.Errorf("it ended before its time: %w", err)
		}
		return struct{}{}, nil
	})
	if err != nil {
		return nil, err
	}
	done := &measured{Seconds: time.Since(arrived.start).Seconds()}
	for i := range arrived.counts {
		done.Buckets = append(done.Buckets, arrived.counts[i].Load())
	}
	done.Count = sum(done.Buckets)
	return done, nil
}

func (w *worker) steadyDownload(ctx context.Context, asked *job, arrived *buckets) error {
	request := &benchpb.DownloadRequest{Size: uint32(asked.Size), Count: endless}
	blobs, err := w.client.Download(ctx, request)
	if err != nil {
		return err
	}
	for {
		blob, err := blobs.Recv()
		if err != nil {
			return err
		}
		arrived.add(uint64(len(blob.GetData())))
	}
}

// steadyUpload counts the bytes that the far end has received, not the bytes that were sent.
func (w *worker) steadyUpload(ctx context.Context, asked *job, arrived *buckets) error {
	stream, err := w.client.Receipts(ctx)
	if err != nil {
		return err
	}
	blob := newBlob(asked.Size)
	sent := make(chan struct{})
	defer func() { <-sent }()
	go func() {
		defer close(sent)
		for stream.Send(blob) == nil {
		}
	}()
	var before uint64
	for {
		total, err := stream.Recv()
		if err != nil {
			return err
		}
		arrived.add(total.GetBytes() - before)
		before = total.GetBytes()
	}
}

func (w *worker) steadyUnary(ctx context.Context, asked *job, arrived *buckets) error {
	blob := newBlob(asked.Size)
	for {
		reply, err := w.client.Unary(ctx, blob)
		if err != nil {
			return err
		}
		if len(reply.GetData()) != asked.Size {
			return errSize
		}
		arrived.add(1)
	}
}
