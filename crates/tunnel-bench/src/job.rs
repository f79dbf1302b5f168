//! The protocol between the orchestrator and a client process: one line of JSON for each job and
//! each reply.
//!
//! Invariant: the Go program implements this protocol too, so names and units must not change.
//! Sizes are in bytes, durations in jobs in milliseconds, measured times in seconds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A job for the client process of a pair.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "job", rename_all = "snake_case")]
pub(crate) enum Job {
    /// Unary calls. Each caller makes one after another.
    Unary(Load),
    /// Server streams, read at full speed.
    Download(Load),
    /// Client streams, written at full speed.
    Upload(Load),
    /// Bidirectional streams with one message in flight on each.
    PingPong(Load),
    /// Opens streams on which nothing is sent, and holds them.
    HoldIdle { streams: usize },
    /// Opens streams whose peer sends without end, holds them and reads none of them.
    HoldUnread { streams: usize, size: u32 },
    /// Starts hostile connections that flood the server until [`Job::Release`].
    Flood { connections: usize },
    /// Drops all held streams and hostile connections.
    Release {},
    /// Small calls while a stream of large messages is read.
    BesideStream {
        callers: usize,
        size: u32,
        millis: u64,
    },
    /// A load whose arrivals are counted for each bucket of time.
    Steady(Steady),
    /// Unary calls at a fixed rate, each timed from when it was due.
    OpenLoop(OpenLoop),
    /// Callers whose calls all time out because the handler is slow.
    Brownout(Brownout),
}

/// A load of fixed duration.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Load {
    /// The payload of each message, in bytes.
    pub(crate) size: u32,
    /// The number of callers or streams.
    pub(crate) at_once: usize,
    pub(crate) millis: u64,
}

/// The parameters of [`Job::Steady`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Steady {
    pub(crate) kind: Kind,
    pub(crate) size: u32,
    pub(crate) at_once: usize,
    pub(crate) millis: u64,
    pub(crate) bucket_millis: u64,
}

/// The parameters of [`Job::OpenLoop`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct OpenLoop {
    pub(crate) size: u32,
    pub(crate) per_second: u32,
    pub(crate) millis: u64,
}

/// The parameters of [`Job::Brownout`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Brownout {
    /// The number of callers. Each makes one call after another.
    pub(crate) callers: usize,
    pub(crate) timeout_millis: u64,
    pub(crate) ends: Ends,
    pub(crate) millis: u64,
}

/// How a call of [`Job::Brownout`] times out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Ends {
    /// The caller drops the call's future.
    Drop,
    /// The call has a deadline.
    Deadline,
}

/// The kind of load of [`Job::Steady`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    Download,
    Upload,
    Unary,
}

/// The measurements of a job. Fields that do not apply to the job are empty.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Measured {
    /// The number of calls, messages, streams or timeouts.
    pub(crate) count: u64,
    /// The duration of the job.
    pub(crate) seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p50: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p99: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p999: Option<f64>,
    /// The payload of the stream beside the counted calls, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) beside_bytes: Option<u64>,
    /// [`Job::Steady`]: the bytes or calls of each bucket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) buckets: Option<Vec<u64>>,
    /// [`Job::Brownout`]: the calls that did not time out, counted by what happened to them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) failures: BTreeMap<String, u64>,
}

/// The reply to a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reply {
    Ok(Measured),
    Error(String),
}

/// The first line of a process, before any job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Greeting {
    /// The process listens on this port of 127.0.0.1.
    Port(u16),
    /// The process can make calls.
    Ready(bool),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_one_flat_object_with_its_name_in_it() {
        let job = Job::PingPong(Load {
            size: 16,
            at_once: 64,
            millis: 300,
        });
        let line = serde_json::to_string(&job).unwrap();
        assert_eq!(
            line,
            r#"{"job":"ping_pong","size":16,"at_once":64,"millis":300}"#
        );
        assert_eq!(
            serde_json::to_string(&Job::Release {}).unwrap(),
            r#"{"job":"release"}"#
        );
        assert_eq!(serde_json::from_str::<Job>(&line).unwrap(), job);
    }

    #[test]
    fn an_answer_may_leave_out_what_does_not_belong_to_its_job() {
        let reply = serde_json::from_str(r#"{"ok":{"count":3,"seconds":0.5}}"#).unwrap();
        let Reply::Ok(measured) = reply else {
            panic!("not an error")
        };
        assert_eq!((measured.count, measured.p50), (3, None));
        let reply = serde_json::from_str::<Reply>(r#"{"error":"no such call"}"#).unwrap();
        assert_eq!(reply, Reply::Error("no such call".into()));
    }

    #[test]
    fn a_greeting_has_a_port_or_says_that_calls_can_be_made() {
        let port = serde_json::from_str::<Greeting>(r#"{"port":5005}"#).unwrap();
        assert_eq!(port, Greeting::Port(5005));
        assert_eq!(
            serde_json::to_string(&Greeting::Ready(true)).unwrap(),
            r#"{"ready":true}"#
        );
    }
}
