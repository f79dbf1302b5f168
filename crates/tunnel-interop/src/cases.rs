//! The cases of each pair.

use tunnel_conformance::{CASES, Case};

use crate::matrix::{Direction, Pair, Peer, Revision};
use crate::{examples, grpc};

/// The names of the cases of a pair, in the order in which they run.
///
/// The suite's own tests run its cases between two ends of this library. Python is too slow for the
/// soak of gRPC's cases, and the suite covers what the others prove.
pub(crate) fn cases(pair: &Pair) -> Vec<String> {
    if pair.has_examples() {
        return examples::CASES.map(str::to_owned).into();
    }
    let ends = [pair.caller, pair.handler];
    let mut cases = Vec::new();
    if pair.has_foreign_end() {
        let lacks = lacks(pair);
        // h2 ends a plain connection with many small DATA frames that are not read yet, as grpc-go
        // sends them.
        let small = "many_small_messages_stay_in_order";
        // Debug builds and Python between each two of a thousand calls need most of the time that a case has.
        let is_slow = pair.direction == Direction::Program && ends.contains(&Peer::Python);
        let slow = "a_thousand_calls_in_a_row_succeed";
        let has = |case: &&Case| {
            !case.name.ends_with(small)
                && (case.name != slow || !is_slow)
                && case.needs.is_none_or(|need| !lacks.contains(&need))
                // They look for a cut upload as well as for the deadline.
                && !(lacks.contains(&"cut_uploads") && case.name.ends_with("during_an_upload"))
        };
        cases.extend(CASES.iter().filter(has).map(|case| case.name.to_owned()));
    }
    let has_official = match pair.direction {
        Direction::Plain => false,
        // Client and server of these cases are Go programs that know nothing of the pair.
        Direction::Program => !pair.has_foreign_end(),
        Direction::Forward | Direction::Reverse => !ends.contains(&Peer::Python),
    };
    if has_official {
        cases.extend(grpc::cases());
    }
    if has_official && pair.direction == Direction::Program {
        cases.extend(grpc::grpcurl_cases());
    }
    cases
}

/// The features of the suite that revision zero lacks, or a plain connection to or from a bridge.
fn lacks(pair: &Pair) -> Vec<&'static str> {
    // grpc-go and grpcio refuse such metadata, grpc-go drops such details, and the other libraries
    // carry no compressed messages.
    let mut lacks = vec!["unusual_metadata", "any_details", "compression"];
    if [pair.caller, pair.handler].contains(&Peer::Python) {
        // A call of grpcio that is written to after its end has ended as INTERNAL, now and then.
        lacks.push("early_ends");
    }
    if pair.handler.is_foreign() {
        // hyper resets the stream of a handler that panics, and tonic reads a reset request stream
        // as a clean end.
        lacks.extend(["panics", "cut_uploads", "detached"]);
    }
    if pair.caller.is_foreign() || matches!(pair.direction, Direction::Plain | Direction::Program) {
        // The stream stays open for the requests.
        lacks.push("responses_alone");
    }
    if pair.revision == Revision::Zero {
        // It has no windows.
        lacks.extend(["windows", "isolation"]);
    }
    if matches!(pair.direction, Direction::Plain | Direction::Program) {
        // The streams of a connection share a window.
        lacks.extend(["windows", "isolation", "loss"]);
    }
    if pair.direction == Direction::Program {
        // tonic's own connections do not keep the status of a deadline, nor that of a handler that panics.
        lacks.extend(["deadlines", "panics", "cut_uploads", "detached"]);
    }
    lacks
}
