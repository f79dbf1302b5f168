package main

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"

	"interoppeer/internal/generated/benchpb"
)

// service is the benchmark's service. It does as little work as possible.
type service struct {
	benchpb.UnimplementedBenchServer
}

func (service) Unary(_ context.Context, blob *benchpb.Blob) (*benchpb.Blob, error) {
	return blob, nil
}

func (service) Download(
	request *benchpb.DownloadRequest, blobs grpc.ServerStreamingServer[benchpb.Blob],
) error {
	blob := newBlob(int(request.GetSize()))
	for range request.GetCount() {
		if err := blobs.Send(blob); err != nil {
			return err
		}
	}
	return nil
}

func (service) Upload(blobs grpc.ClientStreamingServer[benchpb.Blob, benchpb.Total]) error {
	var total uint64
	for {
		blob, err := blobs.Recv()
		if errors.Is(err, io.EOF) {
			return blobs.SendAndClose(&benchpb.Total{Bytes: total})
		}
		if err != nil {
			return err
		}
		total += uint64(len(blob.GetData()))
	}
}

func (service) Receipts(blobs grpc.BidiStreamingServer[benchpb.Blob, benchpb.Total]) error {
	var total uint64
	return answer(blobs, func(blob *benchpb.Blob) *benchpb.Total {
		total += uint64(len(blob.GetData()))
		return &benchpb.Total{Bytes: total}
	})
}

func (service) PingPong(blobs grpc.BidiStreamingServer[benchpb.Blob, benchpb.Blob]) error {
	return answer(blobs, func(blob *benchpb.Blob) *benchpb.Blob { return blob })
}

// answer sends headers at once and then one answer for each blob.
func answer[T any](blobs grpc.BidiStreamingServer[benchpb.Blob, T], to func(*benchpb.Blob) *T) error {
	if err := blobs.SendHeader(nil); err != nil {
		return err
	}
	for {
		blob, err := blobs.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := blobs.Send(to(blob)); err != nil {
			return err
		}
	}
}

func newBlob(size int) *benchpb.Blob {
	data := make([]byte, size)
	for i := range data {
		data[i] = 7
	}
	return &benchpb.Blob{Data: data}
}
