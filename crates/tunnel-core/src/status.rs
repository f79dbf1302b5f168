//! The gRPC status of a call, as the wire carries it.

use bytes::Bytes;
use std::fmt;

/// A gRPC status code.
///
/// The numbers are gRPC's own (`google.rpc.Code`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(i32)]
pub enum Code {
    /// The call succeeded.
    Ok = 0,
    /// The call was cancelled, usually by its caller.
    Cancelled = 1,
    /// An error without a better code, or an unknown code.
    Unknown = 2,
    /// The caller sent an invalid argument.
    InvalidArgument = 3,
    /// The deadline passed before the call was complete.
    DeadlineExceeded = 4,
    /// A requested entity does not exist.
    NotFound = 5,
    /// An entity to be created already exists.
    AlreadyExists = 6,
    /// The caller may not do this.
    PermissionDenied = 7,
    /// A limit was reached.
    ResourceExhausted = 8,
    /// The system is not in a state in which this can be done.
    FailedPrecondition = 9,
    /// The operation was aborted, typically by a conflict.
    Aborted = 10,
    /// A value is outside its valid range.
    OutOfRange = 11,
    /// The method is not implemented here.
    Unimplemented = 12,
    /// An invariant was broken.
    Internal = 13,
    /// The far end cannot be reached now; trying again may help.
    Unavailable = 14,
    /// Data was lost or corrupted beyond repair.
    DataLoss = 15,
    /// The caller is not authenticated.
    Unauthenticated = 16,
}

impl Code {
    /// The code of a number on the wire; one that gRPC does not know is
    /// [`Code::Unknown`], as gRPC itself treats it.
    pub fn from_wire(code: i32) -> Self {
        match code {
            0 => Self::Ok,
            1 => Self::Cancelled,
            3 => Self::InvalidArgument,
            4 => Self::DeadlineExceeded,
            5 => Self::NotFound,
            6 => Self::AlreadyExists,
            7 => Self::PermissionDenied,
            8 => Self::ResourceExhausted,
            9 => Self::FailedPrecondition,
            10 => Self::Aborted,
            11 => Self::OutOfRange,
            12 => Self::Unimplemented,
            13 => Self::Internal,
            14 => Self::Unavailable,
            15 => Self::DataLoss,
            16 => Self::Unauthenticated,
            _ => Self::Unknown,
        }
    }

    /// The name of this code in gRPC's documents, such as `NOT_FOUND`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Cancelled => "CANCELLED",
            Self::Unknown => "UNKNOWN",
            Self::InvalidArgument => "INVALID_ARGUMENT",
            Self::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Self::NotFound => "NOT_FOUND",
            Self::AlreadyExists => "ALREADY_EXISTS",
            Self::PermissionDenied => "PERMISSION_DENIED",
            Self::ResourceExhausted => "RESOURCE_EXHAUSTED",
            Self::FailedPrecondition => "FAILED_PRECONDITION",
            Self::Aborted => "ABORTED",
            Self::OutOfRange => "OUT_OF_RANGE",
            Self::Unimplemented => "UNIMPLEMENTED",
            Self::Internal => "INTERNAL",
            Self::Unavailable => "UNAVAILABLE",
            Self::DataLoss => "DATA_LOSS",
            Self::Unauthenticated => "UNAUTHENTICATED",
        }
    }

    /// The number of this code on the wire.
    pub fn to_wire(self) -> i32 {
        self as i32
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The status of a finished call: `google.rpc.Status` on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The code. A wire code that gRPC does not know arrives as [`Code::Unknown`].
    pub code: Code,
    /// A sentence for developers; may be empty.
    pub message: String,
    /// Typed details; usually none.
    pub details: Vec<StatusDetail>,
}

impl Status {
    /// The status of success.
    pub const OK: Self = Self {
        code: Code::Ok,
        message: String::new(),
        details: Vec::new(),
    };

    /// A status with a message and no details.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            details: Vec::new(),
        }
    }

    /// The size of this status for the metadata limit, in bytes: the text of the message and of all
    /// details, with [`ENTRY_OVERHEAD`](crate::metadata::ENTRY_OVERHEAD) for each detail.
    pub fn size(&self) -> usize {
        let detail =
            |d: &StatusDetail| d.type_url.len() + d.value.len() + crate::metadata::ENTRY_OVERHEAD;
        self.message.len() + self.details.iter().map(detail).sum::<usize>()
    }
}

/// One detail of a [`Status`]: `google.protobuf.Any` on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusDetail {
    /// Names the type of the message in `value`.
    pub type_url: String,
    /// An encoded message of that type.
    pub value: Bytes,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_grpc_code_survives_the_wire_and_others_become_unknown() {
        for n in 0..=16 {
            assert_eq!(Code::from_wire(n).to_wire(), n);
        }
        for n in [-1, 17, i32::MAX, i32::MIN] {
            assert_eq!(Code::from_wire(n), Code::Unknown);
        }
    }
}
