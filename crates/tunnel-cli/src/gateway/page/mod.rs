//! The page for operators at the admin listener. It shows what the admin API says, and its buttons do what the API does.
//!
//! The server makes all HTML: for the first response, and each second for the script, which changes the document where
//! it differs. So there is one renderer, and the page can be read without the script.

mod actions;
mod chart;
mod devices;
mod dialogs;
mod gateways;
mod guard;
mod overview;
mod session;
mod view;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Form, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use maud::{DOCTYPE, Markup, html};
use serde::Deserialize;
use tonic::Status;
use tonic::service::Routes;

use self::actions::Operator;
use self::guard::Rules;
use self::session::Sessions;
use self::view::View;
use super::admin::FleetAdmin;
use super::history::History;
use super::presence::Presence;
use crate::admin::api;
use crate::admin::api::admin_server::Admin as _;
use crate::identity::authenticator::Authenticator;

/// The longest body of a request to the page.
const MAX_BODY: usize = 16 << 10;

/// What the page needs.
pub(crate) struct PageParts {
    pub(crate) admin: Arc<FleetAdmin>,
    pub(crate) presence: Arc<Presence>,
    /// With `run` running.
    pub(crate) history: Arc<History>,
    /// Who may see the page. `None`: everybody who reaches it.
    pub(crate) admins: Option<Arc<Authenticator>>,
    /// Where the listener is bound.
    pub(crate) address: SocketAddr,
    pub(crate) tls: bool,
}

/// What the handlers share.
struct Page {
    admin: Arc<FleetAdmin>,
    presence: Arc<Presence>,
    history: Arc<History>,
    sessions: Option<Arc<Sessions>>,
}

/// The page and the gRPC API, for one listener that accepts HTTP/1 and HTTP/2.
pub(crate) fn router(parts: PageParts, api: Routes) -> Router {
    let rules = Rules {
        open: parts.admins.is_none(),
        address: parts.address,
    };
    let sessions = parts
        .admins
        .map(|admins| Arc::new(Sessions::new(admins, parts.address.port(), parts.tls)));
    let page = Arc::new(Page {
        admin: parts.admin.clone(),
        presence: parts.presence,
        history: parts.history,
        sessions: sessions.clone(),
    });
    let for_operators = Router::new()
        .route("/", get(document))
        .route("/page/live", get(live))
        .route("/page/{action}", post(actions::act).with_state(parts.admin))
        .route("/logout", post(logout))
        .layer(from_fn_with_state(sessions, session::require));
    let for_all = Router::new()
        .route("/login", get(login_form).post(login))
        .route("/page/page.css", get(css))
        .route("/page/page.js", get(script))
        .route("/page/icon.svg", get(icon));
    let pages = for_operators
        .merge(for_all)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(from_fn_with_state(rules, guard::protect))
        .with_state(page);
    let api = api
        .into_axum_router()
        .layer(axum::middleware::from_fn(guard::only_grpc));
    api.merge(pages)
}

async fn css() -> Response {
    let kind = [(header::CONTENT_TYPE, "text/css; charset=utf-8")];
    (kind, include_str!("page.css")).into_response()
}

async fn script() -> Response {
    let kind = [(header::CONTENT_TYPE, "text/javascript; charset=utf-8")];
    (kind, include_str!("page.js")).into_response()
}

async fn icon() -> Response {
    let kind = [(header::CONTENT_TYPE, "image/svg+xml")];
    (kind, include_str!("icon.svg")).into_response()
}

/// A whole document.
fn html_document(title: &str, body: &Markup) -> Html<String> {
    let document = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                link rel="icon" href="/page/icon.svg" type="image/svg+xml";
                link rel="stylesheet" href="/page/page.css";
                script src="/page/page.js" defer {}
            }
            body { (body) }
        }
    };
    Html(document.into_string())
}

/// The part of the document that changes.
async fn live_part(page: &Page, view: &View) -> Result<Markup, Status> {
    let stats = page.admin.stats(tonic::Request::new(api::StatsRequest {}));
    let listed = async {
        let request = tonic::Request::new(view.request()?);
        Ok(page.admin.list(request).await?.into_inner())
    };
    // At the same time: a gateway that does not answer costs a second.
    let (stats, listed) = futures::join!(stats, listed);
    let stats = stats?.into_inner();
    let in_fleet = page.admin.is_in_fleet();
    let mut silent = stats.unreachable.clone();
    silent.extend(listed.iter().flat_map(|page| page.unreachable.clone()));
    Ok(html! {
        main #live {
            (gateways::silent(silent))
            (overview::state(&stats, page.admin.phase()))
            (gateways::table(&stats))
            @if in_fleet { p data-key="charts-of" { small { "This gateway, " bdi { (stats.gateway) } ":" } } }
            (chart::charts(&page.history.samples()))
            (devices::section(view, in_fleet, listed.as_ref()))
            (overview::errors(&stats.gateway, &page.presence.last_errors()))
        }
    })
}

/// The response to a failure that only a mistake of the gateway can cause.
fn failed(status: &Status) -> Response {
    let message = status.message().to_owned();
    (StatusCode::INTERNAL_SERVER_ERROR, message).into_response()
}

async fn document(
    State(page): State<Arc<Page>>,
    Query(view): Query<View>,
    operator: Operator,
) -> Response {
    let live = match live_part(&page, &view).await {
        Ok(live) => live,
        Err(status) => return failed(&status),
    };
    let body = html! {
        a.skip href="#devices" { "Skip to the devices" }
        header {
            h1 { "Tunnel gateway" }
            p #connection role="status" { noscript { "Reload for news; the buttons need the script of this page." } }
            @if let Some(name) = operator.name() {
                form method="post" action="/logout" {
                    span { "Operator " bdi { (name) } " " }
                    button { "Log out" }
                }
            }
            button.danger type="button" data-do="drain" { "Drain…" }
        }
        p #said role="status" aria-live="polite" {}
        (devices::search(&view))
        (live)
        (dialogs::all())
    };
    html_document("Tunnel gateway", &body).into_response()
}

async fn live(State(page): State<Arc<Page>>, Query(view): Query<View>) -> Response {
    match live_part(&page, &view).await {
        Ok(live) => Html(live.into_string()).into_response(),
        Err(status) => failed(&status),
    }
}

fn login_page(error: Option<&str>) -> Html<String> {
    let body = html! {
        main.login {
            h1 { "Tunnel gateway" }
            form method="post" action="/login" {
                label for="token" { "Token of an operator" }
                input #token name="token" type="password" autocomplete="off" required autofocus
                    aria-describedby="error";
                p #error role="alert" { (error.unwrap_or_default()) }
                button { "Log in" }
            }
        }
    };
    html_document("Log in – Tunnel gateway", &body)
}

async fn login_form(State(page): State<Arc<Page>>, request: Request) -> Response {
    match &page.sessions {
        Some(sessions) if sessions.find(request.headers()).is_none() => {
            login_page(None).into_response()
        }
        _ => Redirect::to("/").into_response(),
    }
}

#[derive(Deserialize)]
struct Login {
    token: String,
}

async fn login(State(page): State<Arc<Page>>, Form(login): Form<Login>) -> Response {
    let Some(sessions) = &page.sessions else {
        return Redirect::to("/").into_response();
    };
    match sessions.begin(login.token.trim()) {
        Ok(cookie) => ([(header::SET_COOKIE, cookie)], Redirect::to("/")).into_response(),
        Err(status) => {
            let page = login_page(Some(status.message()));
            (StatusCode::UNAUTHORIZED, page).into_response()
        }
    }
}

async fn logout(State(page): State<Arc<Page>>, request: Request) -> Response {
    let Some(sessions) = &page.sessions else {
        return Redirect::to("/").into_response();
    };
    let cookie = sessions.end(request.headers());
    ([(header::SET_COOKIE, cookie)], Redirect::to("/login")).into_response()
}
