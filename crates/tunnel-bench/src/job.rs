//! What the orchestrator asks of a client process and what it is answered: one line of JSON each.
//!
//! Invariant: this is a protocol. The program in another language speaks it too, so names and
//! units stay as they are: sizes in bytes, times asked for in milliseconds, times measured in
//! seconds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One thing to do, by the client process of a pair.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "job", rename_all = "snake_case")]
pub(crate) enum Job {
    /// Unary calls, one after another by each caller.
    Unary(Load),
    /// Server streams, read as fast as they come.
    Download(Load),
    /// Client streams, written as fast as they go.
    Upload(Load),
    /// Bidirectional streams with one message under way at a time.
    PingPong(Load),
    /// Opens streams on which nothing is sent, and keeps them.
    HoldIdle { streams: usize },
    /// Opens streams that are full of messages, and reads none of them.
    HoldUnread { streams: usize, size: u32 },
    /// Has hostile connections flood the server until [`Job::Release`].
    Flood { connections: usize },
    /// Drops all that is held.
    Release {},
    /// Small calls while a stream of large messages is read.
    BesideStream {
        callers: usize,
        size: u32,
        millis: u64,
    },
    /// What arrives in each bucket of time.
    Steady(Steady),
    /// Unary calls at a fixed rate, each timed from when it was due.
    OpenLoop(OpenLoop),
    /// Callers whose calls all time out, because the handler is slow.
    Brownout(Brownout),
}

/// A load that lasts for a time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Load {
    /// The payload of each message.
    pub(crate) size: u32,
    /// How many callers or streams there are.
    pub(crate) at_once: usize,
    pub(crate) millis: u64,
}

/// The job of the same name.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Steady {
    pub(crate) kind: Kind,
    pub(crate) size: u32,
    pub(crate) at_once: usize,
    pub(crate) millis: u64,
    pub(crate) bucket_millis: u64,
}

/// The job of the same name.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct OpenLoop {
    pub(crate) size: u32,
    pub(crate) per_second: u32,
    pub(crate) millis: u64,
}

/// The job of the same name.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Brownout {
    /// Each makes one call after another.
    pub(crate) callers: usize,
    pub(crate) timeout_millis: u64,
    pub(crate) ends: Ends,
    pub(crate) millis: u64,
}

/// What ends a call of [`Job::Brownout`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Ends {
    /// The caller drops the call's future.
    Drop,
    /// The call's deadline.
    Deadline,
}

/// What [`Job::Steady`] does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    Download,
    Upload,
    Unary,
}

/// What a job came to; only what belongs to the job is there.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Measured {
    /// Calls, messages, streams, or timeouts.
    pub(crate) count: u64,
    /// How long all of it took.
    pub(crate) seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p50: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p99: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p999: Option<f64>,
    /// Payload that a stream carried beside what was counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) beside_bytes: Option<u64>,
    /// Of [`Job::Steady`]: bytes of streams, or calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) buckets: Option<Vec<u64>>,
    /// Of [`Job::Brownout`]: what happened to calls that did not time out, and to how many.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) failures: BTreeMap<String, u64>,
}

/// The line that answers a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reply {
    Ok(Measured),
    Error(String),
}

/// What a process says before it takes jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Greeting {
    /// It listens at this port of the loopback.
    Port(u16),
    /// It can make calls.
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
    fn a_greeting_tells_a_port_or_that_calls_can_be_made() {
        let port = serde_json::from_str::<Greeting>(r#"{"port":5005}"#).unwrap();
        assert_eq!(port, Greeting::Port(5005));
        assert_eq!(
            serde_json::to_string(&Greeting::Ready(true)).unwrap(),
            r#"{"ready":true}"#
        );
    }
}
