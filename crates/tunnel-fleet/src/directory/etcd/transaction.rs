//! Transactions in etcd's terms.
//!
//! If a condition does not hold, the other branch reads the keys of all conditions. So what a refusal reports is from
//! the revision at which it was refused.

use std::collections::BTreeSet;

use super::entry::entry;
use super::proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use super::proto::etcdserverpb::request_op::Request;
use super::proto::etcdserverpb::response_op::Response;
use super::proto::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, TxnResponse,
};
use crate::directory::{Committed, Condition, DirectoryError, Transaction, Write};

/// What etcd is asked.
pub(super) fn request(transaction: Transaction) -> TxnRequest {
    let Transaction { conditions, writes } = transaction;
    let keys: BTreeSet<&str> = conditions.iter().map(Condition::key).collect();
    TxnRequest {
        failure: keys.into_iter().map(read).collect(),
        compare: conditions.into_iter().map(compare).collect(),
        success: writes.into_iter().map(operation).collect(),
    }
}

/// What etcd has answered.
pub(super) fn committed(response: TxnResponse) -> Result<Committed, DirectoryError> {
    if response.succeeded {
        let header = response.header.unwrap_or_default();
        let revision = header.revision as u64;
        return Ok(Committed::Done { revision });
    }
    let mut current = Vec::new();
    for operation in response.responses {
        let Some(Response::ResponseRange(read)) = operation.response else {
            let text = "a refused transaction did not read its keys";
            return Err(DirectoryError::Unexpected(text.into()));
        };
        current.extend(read.kvs.into_iter().filter_map(entry));
    }
    Ok(Committed::Refused { current })
}

fn compare(condition: Condition) -> Compare {
    // A key that does not exist has a revision of 0.
    let (key, result, target, value) = match condition {
        Condition::Exists(key) => (
            key,
            CompareResult::Greater,
            CompareTarget::Create,
            TargetUnion::CreateRevision(0),
        ),
        Condition::Absent(key) => (
            key,
            CompareResult::Equal,
            CompareTarget::Create,
            TargetUnion::CreateRevision(0),
        ),
        Condition::Unchanged { key, revision } => {
            // No entry has revision 0, and etcd takes it for "does not exist".
            let revision = i64::try_from(revision)
                .ok()
                .filter(|revision| *revision > 0);
            let revision = TargetUnion::ModRevision(revision.unwrap_or(-1));
            (key, CompareResult::Equal, CompareTarget::Mod, revision)
        }
    };
    Compare {
        result: result.into(),
        target: target.into(),
        key: key.into(),
        target_union: Some(value),
    }
}

fn read(key: &str) -> RequestOp {
    let key = key.to_owned().into();
    let read = RangeRequest {
        key,
        ..RangeRequest::default()
    };
    RequestOp {
        request: Some(Request::RequestRange(read)),
    }
}

fn operation(write: Write) -> RequestOp {
    let request = match write {
        Write::Put { key, value, lease } => Request::RequestPut(PutRequest {
            key: key.into(),
            value,
            lease: lease.map_or(0, |lease| lease.0),
        }),
        Write::Delete(key) => Request::RequestDeleteRange(DeleteRangeRequest { key: key.into() }),
    };
    RequestOp {
        request: Some(request),
    }
}
