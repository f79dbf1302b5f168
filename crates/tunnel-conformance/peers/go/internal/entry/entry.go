// Package entry translates between metadata and its form in messages.
package entry

import (
	"google.golang.org/grpc/metadata"

	pb "interoppeer/internal/generated/interoppb"
)

// Pairs makes entries of keys and values that alternate.
func Pairs(keysAndValues ...string) []*pb.Entry {
	var entries []*pb.Entry
	for i := 0; i < len(keysAndValues); i += 2 {
		entries = append(entries, &pb.Entry{Key: keysAndValues[i], Value: []byte(keysAndValues[i+1])})
	}
	return entries
}

// ToMetadata returns the metadata that entries stand for.
func ToMetadata(entries []*pb.Entry) metadata.MD {
	md := metadata.MD{}
	for _, entry := range entries {
		md.Append(entry.GetKey(), string(entry.GetValue()))
	}
	return md
}

// FromMetadata returns the entries that metadata consists of.
func FromMetadata(md metadata.MD) []*pb.Entry {
	var entries []*pb.Entry
	for key, values := range md {
		for _, value := range values {
			entries = append(entries, &pb.Entry{Key: key, Value: []byte(value)})
		}
	}
	return entries
}
