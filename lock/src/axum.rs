//! Errors as axum responses.

use std::{sync::Arc, time::Duration};

use axum_core::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{
    HeaderValue, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER},
};
use serde_json::json;

use crate::{Error, ErrorKind};

const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");

/// Converts the error into a response with a problem document ([RFC
/// 9457](https://www.rfc-editor.org/rfc/rfc9457)).
///
/// | kind | status | |
/// |---|---|---|
/// | `Busy` | 423 | `Retry-After` |
/// | `Lost` | 409 | |
/// | `Unavailable` | 503 | `Retry-After` |
/// | `Closed` | 503 | |
/// | any other | 500 | |
///
/// `Retry-After` is [`Error::retry_after`], rounded up to whole seconds. The body has the members
/// `title`, `status` and `detail`, which depend only on the status, and
/// [`kind`](ErrorKind::as_str), and [`id`](Error::id) if there is one.
///
/// The message of the error is not part of the response, because it names servers. The error itself
/// is in the extensions of the response, as an `Arc<lock::Error>`, for a middleware that logs it.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), lock::Error> {
/// use std::sync::Arc;
///
/// use axum::response::IntoResponse;
///
/// # let locks = lock::Locks::in_memory();
/// let _guard = locks.lock("invoice:7").acquire().await?;
/// let busy = locks.lock("invoice:7").retry(1, std::time::Duration::ZERO).acquire().await;
/// let response = busy.map(|_guard| "paid").into_response();
/// assert_eq!(response.status(), 423);
/// assert_eq!(response.headers()["retry-after"], "1");
/// let error = response.extensions().get::<Arc<lock::Error>>().expect("for a middleware");
/// assert_eq!(error.id(), Some("invoice:7"));
/// # Ok(())
/// # }
/// ```
// There is no `Cache-Control`: caches may not store any of these responses without it, because none
// of the statuses is among those of section 15.1 of RFC 9110 (section 3 of RFC 9111).
impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let (status, detail) = told(self.kind());
        let mut problem = json!({
            "title": status.canonical_reason(),
            "status": status.as_u16(),
            "detail": detail,
            "kind": self.kind().as_str(),
        });
        if let Some(id) = self.id() {
            problem["id"] = id.into();
        }
        let mut response = Response::new(Body::from(problem.to_string()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, PROBLEM);
        if let Some(time) = self.retry_after() {
            headers.insert(RETRY_AFTER, whole_seconds(time).into());
        }
        response.extensions_mut().insert(Arc::new(self));
        response
    }
}

/// The status of a kind, and what the client can do about it.
fn told(kind: ErrorKind) -> (StatusCode, &'static str) {
    match kind {
        ErrorKind::Busy => (
            StatusCode::LOCKED,
            "Another request is working on this: send yours again after the time in `Retry-After`.",
        ),
        ErrorKind::Lost => (
            StatusCode::CONFLICT,
            "The work was stopped halfway, because others may be working on the same thing by now: \
             check what was done before you send the request again.",
        ),
        ErrorKind::Unavailable | ErrorKind::Closed => (
            StatusCode::SERVICE_UNAVAILABLE,
            "The service cannot do this at the moment: send the request again a little later.",
        ),
        ErrorKind::Rejected
        | ErrorKind::Deadlock
        | ErrorKind::Invalid
        | ErrorKind::NotInstalled
        | ErrorKind::Unsupported => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "The service has a fault that sending the request again does not fix: tell its \
             operators.",
        ),
    }
}

/// Rounds up: a client that comes a fraction of a second early would have come in vain.
fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, StreamExt};
    use serde_json::Value;

    use super::*;
    use crate::Locks;

    const KINDS: [(ErrorKind, u16, Option<&str>); 9] = [
        (ErrorKind::Busy, 423, Some("1")),
        (ErrorKind::Lost, 409, None),
        (ErrorKind::Unavailable, 503, Some("1")),
        (ErrorKind::Closed, 503, None),
        (ErrorKind::Rejected, 500, None),
        (ErrorKind::Deadlock, 500, None),
        (ErrorKind::Invalid, 500, None),
        (ErrorKind::NotInstalled, 500, None),
        (ErrorKind::Unsupported, 500, None),
    ];

    fn error(kind: ErrorKind) -> Error {
        Error::new(kind, "redis.internal:6379 did not answer")
    }

    fn text(response: Response) -> String {
        let chunks = response.into_body().into_data_stream().map(Result::unwrap);
        let bytes = chunks.collect::<Vec<_>>().now_or_never().expect("the body is there").concat();
        String::from_utf8(bytes).unwrap()
    }

    fn problem(error: Error) -> Value {
        serde_json::from_str(&text(error.into_response())).unwrap()
    }

    #[test]
    fn each_kind_has_a_status_and_is_retried_if_that_helps() {
        for (kind, status, again) in KINDS {
            let response = error(kind).into_response();
            let header = |name: &str| {
                response.headers().get(name).map(|value| value.to_str().unwrap().to_owned())
            };
            assert_eq!(response.status(), status, "{kind:?}");
            assert_eq!(header("retry-after").as_deref(), again, "{kind:?}");
            assert_eq!(header("content-type").as_deref(), Some("application/problem+json"));
            assert_eq!(header("cache-control"), None);
        }
    }

    #[test]
    fn the_body_is_a_problem_with_kind_and_id() {
        for (kind, status, _) in KINDS {
            let problem = problem(error(kind).on(&"invoice:7".into()));
            let members = problem.as_object().unwrap();
            let mut names: Vec<&str> = members.keys().map(String::as_str).collect();
            names.sort_unstable();
            assert_eq!(names, ["detail", "id", "kind", "status", "title"]);
            assert_eq!(problem["status"], status);
            let phrase = StatusCode::from_u16(status).unwrap().canonical_reason().unwrap();
            assert_eq!(problem["title"], phrase);
            assert_eq!(problem["kind"], kind.as_str());
            assert_eq!(problem["id"], "invoice:7");
        }
        assert_eq!(problem(error(ErrorKind::NotInstalled)).get("id"), None);
    }

    #[test]
    fn any_id_comes_through_the_body() {
        for id in [
            "a\"b\\c",
            "line\r\nSet-Cookie: a=b",
            "\u{0}\u{1f}\u{7f}",
            "Rechnung für 🦀",
            "</script>",
        ] {
            let response = error(ErrorKind::Busy).on(&id.into()).into_response();
            assert_eq!(response.headers().len(), 2, "no id is in a header");
            let problem: Value = serde_json::from_str(&text(response)).unwrap();
            assert_eq!(problem["id"], id);
        }
    }

    #[test]
    fn the_message_is_for_the_log_only() {
        for (kind, ..) in KINDS {
            let response = error(kind).into_response();
            let logged = response.extensions().get::<Arc<Error>>().expect("the error").to_string();
            assert!(logged.contains("redis.internal"), "{logged}");
            let headers = format!("{:?}", response.headers());
            assert!(!headers.contains("redis"), "{headers}");
            let body = text(response);
            assert!(!body.contains("redis"), "{body}");
        }
    }

    #[test]
    fn a_part_of_a_second_is_waited_for() {
        let again = |millis| {
            let busy = Error::busy_for(Duration::from_millis(millis));
            busy.into_response().headers()["retry-after"].to_str().unwrap().to_owned()
        };
        assert_eq!(again(0), "1");
        assert_eq!(again(2000), "2");
        assert_eq!(again(2001), "3");
        assert_eq!(again(3_600_000), "60");
    }

    #[tokio::test(start_paused = true)]
    async fn a_locked_function_that_returns_the_error_is_a_handler() {
        #[crate::locked(id = "invoice:{id}", locks = locks, wait = "2s", crate = crate)]
        async fn pay(locks: Locks, id: u64) -> Result<String, Error> {
            Ok(format!("invoice {id} is paid"))
        }
        let locks = Locks::in_memory();
        let response = pay(locks.clone(), 7).await.into_response();
        assert_eq!(response.status(), 200);
        assert_eq!(text(response), "invoice 7 is paid");

        let _guard = locks.lock("invoice:7").acquire().await.unwrap();
        let response = pay(locks, 7).await.into_response();
        assert_eq!(response.status(), 423);
        assert_eq!(response.headers()["retry-after"], "2");
    }
}
