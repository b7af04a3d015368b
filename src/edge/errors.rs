//! What clients are told when something is refused or fails.

use roost_cluster::SubmitError;
use roost_protocol::{ErrorBody, ErrorCode};
use roost_storage::Fault;
use roost_storage::command::Rejection;

/// How long a client should wait before it tries again at an overloaded node, in milliseconds.
pub(crate) const OVERLOADED_RETRY_MS: u64 = 500;

/// An error with its code's own `retry`.
pub(crate) fn error(code: ErrorCode, message: impl Into<String>) -> ErrorBody {
    ErrorBody::new(code, message)
}

/// A `bad_request`.
pub(crate) fn bad_request(message: impl Into<String>) -> ErrorBody {
    error(ErrorCode::BadRequest, message)
}

/// Why a command or a fresh read has no answer.
pub(crate) fn submit_error(why: &SubmitError) -> ErrorBody {
    match why {
        SubmitError::Rejected(rejection) => rejected(rejection),
        // Another node will do: the client may retry there.
        SubmitError::NotAvailable | SubmitError::Stopped => {
            error(ErrorCode::NotAvailable, why.to_string())
        }
        SubmitError::DeadlineExceeded => error(ErrorCode::DeadlineExceeded, why.to_string()),
        SubmitError::Overloaded => {
            error(ErrorCode::Overloaded, why.to_string()).after_ms(OVERLOADED_RETRY_MS)
        }
    }
}

fn rejected(rejection: &Rejection) -> ErrorBody {
    let code = match rejection {
        Rejection::BadRequest(_) => ErrorCode::BadRequest,
        Rejection::Forbidden(_) => ErrorCode::Forbidden,
        Rejection::NotAMember => ErrorCode::NotAMember,
        Rejection::NotFound(_) => ErrorCode::NotFound,
        Rejection::ClientIdReused => ErrorCode::ClientIdReused,
        Rejection::TooLarge(_) => ErrorCode::TooLarge,
    };
    error(code, rejection.to_string())
}

/// The store could not be read. The node stops at a fault by itself; the client learns no more
/// than that.
pub(crate) fn fault(fault: &Fault) -> ErrorBody {
    tracing::error!(%fault, "reading the store failed");
    error(ErrorCode::Internal, "this node cannot read its store")
}

/// A reply of another kind than the command's own.
pub(crate) fn unexpected_reply() -> ErrorBody {
    error(ErrorCode::Internal, "unexpected reply")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_has_its_code() {
        let code = |why: SubmitError| submit_error(&why).code;
        assert_eq!(code(Rejection::NotAMember.into()), ErrorCode::NotAMember);
        assert_eq!(code(Rejection::ClientIdReused.into()), ErrorCode::ClientIdReused);
        assert_eq!(code(Rejection::NotFound("conversation".into()).into()), ErrorCode::NotFound);
        assert_eq!(code(Rejection::TooLarge("x".into()).into()), ErrorCode::TooLarge);
        assert_eq!(code(Rejection::Forbidden("x".into()).into()), ErrorCode::Forbidden);
        assert_eq!(code(Rejection::BadRequest("x".into()).into()), ErrorCode::BadRequest);
        assert_eq!(code(SubmitError::Stopped), ErrorCode::NotAvailable);
    }

    #[test]
    fn what_may_work_later_says_so() {
        for why in [
            SubmitError::NotAvailable,
            SubmitError::DeadlineExceeded,
            SubmitError::Overloaded,
            SubmitError::Stopped,
        ] {
            assert!(submit_error(&why).retry, "{why}");
        }
        assert!(!submit_error(&Rejection::NotAMember.into()).retry);
    }
}
