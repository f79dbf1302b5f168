package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"google.golang.org/grpc"

	"interoppeer/internal/generated/benchpb"
)

// job is one measurement or step. Sizes are in bytes.
type job struct {
	Job          string `json:"job"`
	Size         int    `json:"size"`
	AtOnce       int    `json:"at_once"`
	Millis       int    `json:"millis"`
	Streams      int    `json:"streams"`
	Callers      int    `json:"callers"`
	Kind         string `json:"kind"`
	BucketMillis int    `json:"bucket_millis"`
}

// length returns the duration of the job.
func (j *job) length() time.Duration {
	return time.Duration(j.Millis) * time.Millisecond
}

// measured is the result of a job. Fields that do not apply are omitted. Times are in seconds.
type measured struct {
	Count       uint64   `json:"count"`
	Seconds     float64  `json:"seconds"`
	P50         *float64 `json:"p50,omitempty"`
	P99         *float64 `json:"p99,omitempty"`
	P999        *float64 `json:"p999,omitempty"`
	BesideBytes *uint64  `json:"beside_bytes,omitempty"`
	Buckets     []uint64 `json:"buckets,omitempty"`
}

// worker runs jobs.
type worker struct {
	client benchpb.BenchClient
	held   held
}

func newWorker(conn grpc.ClientConnInterface) *worker {
	return &worker{client: benchpb.NewBenchClient(conn)}
}

// answer runs the job in a line and returns the reply.
func (w *worker) answer(line []byte) any {
	var asked job
	err := json.Unmarshal(line, &asked)
	var done *measured
	if err == nil {
		done, err = w.do(&asked)
	}
	if err != nil {
		return map[string]string{"error": err.Error()}
	}
	return map[string]*measured{"ok": done}
}

func (w *worker) do(asked *job) (*measured, error) {
	jobs := map[string]func(*job) (*measured, error){
		"unary":         w.unary,
		"download":      w.download,
		"upload":        w.upload,
		"ping_pong":     w.pingPong,
		"hold_idle":     w.holdIdle,
		"hold_unread":   w.holdUnread,
		"release":       w.release,
		"beside_stream": w.besideStream,
		"steady":        w.steady,
	}
	do, known := jobs[asked.Job]
	if !known {
		return nil, fmt.Errorf("there is no job %q", asked.Job)
	}
	return do(asked)
}

// together runs n functions in parallel and returns their results, or the first error. The first
// error cancels the other functions.
func together[T any](n int, run func(ctx context.Context, i int) (T, error)) ([]T, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	results := make([]T, n)
	errs := make(chan error, n)
	for i := range n {
		go func() {
			var err error
			results[i], err = run(ctx, i)
			errs <- err
		}()
	}
	var first error
	for range n {
		if err := <-errs; err != nil && first == nil {
			first = err
			cancel()
		}
	}
	return results, first
}
