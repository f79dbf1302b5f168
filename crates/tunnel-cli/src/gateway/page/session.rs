//! Who has logged in. Sessions are kept in memory.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tonic::Status;

use crate::identity::Identity;
use crate::identity::authenticator::Authenticator;

/// How long a session lasts.
const LIFETIME: Duration = Duration::from_secs(12 * 3600);

/// The most sessions. The oldest is ended first.
const MAX_SESSIONS: usize = 1000;

/// The sessions of operators.
pub(super) struct Sessions {
    admins: Arc<Authenticator>,
    /// The name of the cookie. Cookies do not depend on the port, so the name has it.
    name: String,
    attributes: String,
    /// Oldest first.
    open: Mutex<Vec<Session>>,
}

struct Session {
    /// The SHA-256 of the cookie.
    hash: [u8; 32],
    operator: Identity,
    ends: Instant,
}

fn hash(value: &str) -> [u8; 32] {
    Sha256::digest(value).into()
}

impl Sessions {
    pub(super) fn new(admins: Arc<Authenticator>, port: u16, tls: bool) -> Self {
        let (prefix, secure) = match tls {
            true => ("__Host-", "; Secure"),
            false => ("", ""),
        };
        Self {
            admins,
            name: format!("{prefix}tunnel-session-{port}"),
            attributes: format!("; Path=/; HttpOnly; SameSite=Strict{secure}"),
            open: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Session>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a session; returns its cookie.
    ///
    /// # Errors
    ///
    /// UNAUTHENTICATED for a token of nobody.
    pub(super) fn begin(&self, token: &str) -> Result<String, Status> {
        let mut headers = HeaderMap::new();
        let bearer = HeaderValue::try_from(format!("Bearer {token}"));
        let bearer = bearer.map_err(|_| Status::unauthenticated("this is no token"))?;
        headers.insert(header::AUTHORIZATION, bearer);
        let operator = self.admins.identify(&headers, None)?;
        let operator = operator.ok_or_else(|| Status::unauthenticated("the token is unknown"))?;
        let mut secret = [0; 32];
        getrandom::fill(&mut secret)
            .map_err(|error| Status::internal(format!("no randomness: {error}")))?;
        let value = HEXLOWER.encode(&secret);
        tracing::info!(by = &*operator.name, "logged in to the page");
        let mut open = self.lock();
        let now = Instant::now();
        open.retain(|session| session.ends > now);
        if open.len() == MAX_SESSIONS {
            open.remove(0);
        }
        open.push(Session {
            hash: hash(&value),
            operator,
            ends: now + LIFETIME,
        });
        let Self {
            name, attributes, ..
        } = self;
        let seconds = LIFETIME.as_secs();
        Ok(format!("{name}={value}{attributes}; Max-Age={seconds}"))
    }

    /// The value of the cookie in these headers.
    fn cookie<'a>(&self, headers: &'a HeaderMap) -> Option<&'a str> {
        let cookies = headers.get_all(header::COOKIE).into_iter();
        cookies
            .filter_map(|cookies| cookies.to_str().ok())
            .flat_map(|cookies| cookies.split(';'))
            .filter_map(|cookie| cookie.trim().split_once('='))
            .find_map(|(name, value)| (name == self.name).then_some(value))
    }

    /// The operator whose session these headers name, as long as the token is good.
    pub(super) fn find(&self, headers: &HeaderMap) -> Option<Identity> {
        let hash = hash(self.cookie(headers)?);
        let now = Instant::now();
        let mut found = None;
        for session in &*self.lock() {
            // All are compared, whichever it is.
            if bool::from(session.hash.ct_eq(&hash)) && session.ends > now {
                found = Some(session.operator.clone());
            }
        }
        found.filter(|operator| self.admins.check(operator).is_ok())
    }

    /// Ends the session that these headers name; returns the cookie that forgets it.
    pub(super) fn end(&self, headers: &HeaderMap) -> String {
        if let Some(value) = self.cookie(headers) {
            let hash = hash(value);
            self.lock()
                .retain(|session| !bool::from(session.hash.ct_eq(&hash)));
        }
        format!("{}={}; Max-Age=0", self.name, self.attributes)
    }
}

/// Lets operators through, and adds their [`Identity`] to the request.
pub(super) async fn require(
    State(sessions): State<Option<Arc<Sessions>>>,
    mut request: Request,
    next: Next,
) -> Response {
    let Some(sessions) = sessions else {
        return next.run(request).await;
    };
    match sessions.find(request.headers()) {
        Some(operator) => {
            request.extensions_mut().insert(operator);
            next.run(request).await
        }
        None if request.method() == Method::GET && request.uri().path() == "/" => {
            Redirect::to("/login").into_response()
        }
        None => (StatusCode::UNAUTHORIZED, "log in first").into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::authenticator::IdentitySources;

    #[test]
    fn a_session_lasts_until_it_is_ended_or_its_token_is_removed() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("tokens");
        let line = |token| format!("alice {}\n", HEXLOWER.encode(&hash(token)));
        std::fs::write(&file, line("right")).expect("it is written");
        let sources = IdentitySources {
            tokens: Some(file.clone()),
            ..IdentitySources::default()
        };
        let admins = Arc::new(Authenticator::open(sources).expect("legal"));
        let sessions = Sessions::new(admins.clone(), 7002, true);
        assert!(sessions.begin("wrong").is_err());
        assert!(sessions.begin("").is_err());
        let log_in = || {
            let cookie = sessions.begin("right").expect("known");
            for part in [
                "__Host-tunnel-session-7002=",
                "; HttpOnly",
                "; SameSite=Strict",
                "; Secure",
                "; Max-Age=43200",
            ] {
                assert!(cookie.contains(part), "{cookie}");
            }
            let value = cookie.split(';').next().expect("a value");
            let mut headers = HeaderMap::new();
            let value = format!("other=1; {value}").parse().expect("legal");
            headers.insert(header::COOKIE, value);
            headers
        };
        let (first, second) = (log_in(), log_in());
        let name = |headers| sessions.find(headers).map(|who| who.name.to_string());
        assert_eq!(name(&first).as_deref(), Some("alice"));
        let _ = sessions.end(&first);
        assert_eq!(name(&first), None);
        assert_eq!(name(&second).as_deref(), Some("alice"));
        std::fs::write(&file, line("another")).expect("it is written");
        admins.reload().expect("legal");
        assert_eq!(name(&second), None);
    }
}
