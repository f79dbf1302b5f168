//! Sessions of calls: log in, change the profile, read it.

use anyhow::{Result, anyhow};
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::codegen::{Body as HttpBody, Bytes, StdError};
use tonic::{Code, Response, Status};
use tracing::info;

use crate::report::Tally;
use crate::test::session_service_client::SessionServiceClient;
use crate::test::{GetUserDataRequest, LoginRequest, UpdateProfileRequest, UserData};

/// Runs sessions over a channel: a connection or a tunnel.
///
/// Calls fail when their backend does not know the session. They are counted. Any
/// other failure ends the run.
pub(crate) async fn run<T>(name: &str, channel: T, rounds: usize) -> Result<Tally>
where
    T: GrpcService<Body> + Clone,
    T::Error: Into<StdError>,
    T::ResponseBody: HttpBody<Data = Bytes> + Send + 'static,
    <T::ResponseBody as HttpBody>::Error: Into<StdError> + Send,
{
    let mut client = SessionServiceClient::new(channel);
    let mut tally = Tally::new(name);
    for n in 1..=rounds {
        let round = Round {
            user: format!("user {n} of {name}"),
            profile: format!("profile {n} of {name}"),
            shown: n == 1,
        };
        let held = round.run(&mut client, &mut tally).await?;
        tally.count_round(held);
    }
    info!("{} of {rounds} sessions held", tally.held());
    Ok(tally)
}

/// One session.
struct Round {
    user: String,
    profile: String,
    /// Whether each call is logged.
    shown: bool,
}

impl Round {
    /// Whether one backend answered all calls correctly.
    async fn run<T>(&self, client: &mut SessionServiceClient<T>, tally: &mut Tally) -> Result<bool>
    where
        T: GrpcService<Body>,
        T::Error: Into<StdError>,
        T::ResponseBody: HttpBody<Data = Bytes> + Send + 'static,
        <T::ResponseBody as HttpBody>::Error: Into<StdError> + Send,
    {
        let user = self.user.clone();
        let login = client.login(LoginRequest { user }).await;
        let login = login.map_err(|status| failure(&status))?.into_inner();
        tally.count_answer(&login.backend);
        let session = login.session;
        self.show(
            "Login",
            &format!("session {session} at backend {}", login.backend),
        );

        let profile = self.profile.clone();
        let request = UpdateProfileRequest {
            session: session.clone(),
            profile,
        };
        let updated = self.settle("UpdateProfile", client.update_profile(request).await, tally)?;
        let request = GetUserDataRequest { session };
        let read = self.settle("GetUserData", client.get_user_data(request).await, tally)?;

        let expected = Some(UserData {
            user: self.user.clone(),
            profile: self.profile.clone(),
            backend: login.backend,
        });
        Ok(updated == expected && read == expected)
    }

    /// Counts the result of a call. Returns the answer, unless the session was unknown.
    fn settle(
        &self,
        call: &str,
        outcome: Result<Response<UserData>, Status>,
        tally: &mut Tally,
    ) -> Result<Option<UserData>> {
        match outcome {
            Ok(answer) => {
                let data = answer.into_inner();
                tally.count_answer(&data.backend);
                self.show(
                    call,
                    &format!("{:?} at backend {}", data.profile, data.backend),
                );
                Ok(Some(data))
            }
            Err(status) if status.code() == Code::NotFound => {
                tally.count_refusal();
                self.show(call, &failure(&status).to_string());
                Ok(None)
            }
            Err(status) => Err(failure(&status).context(format!("{call} failed"))),
        }
    }

    fn show(&self, call: &str, outcome: &str) {
        if self.shown {
            info!("{call}: {outcome}");
        }
    }
}

/// A status on one line, without its metadata.
fn failure(status: &Status) -> anyhow::Error {
    anyhow!("{:?}: {}", status.code(), status.message())
}
