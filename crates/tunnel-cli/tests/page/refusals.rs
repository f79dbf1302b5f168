//! Who may see and do nothing.

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::browser::{until_equal, with_browser};
use crate::devices::Api;
use crate::programs::{Gateway, TIMEOUT, run};

/// The whole response to a request over HTTP/1.
async fn answer(gateway: &Gateway, request: &str, headers: &[&str], body: &[u8]) -> String {
    let mut connection = TcpStream::connect(gateway.admin).await.expect("it listens");
    let mut head = format!("{request} HTTP/1.1\r\nconnection: close\r\n");
    head.push_str(&format!("content-length: {}\r\n", body.len()));
    for header in headers {
        head.push_str(header);
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    connection
        .write_all(&[head.as_bytes(), body].concat())
        .await
        .expect("it is read");
    let mut answer = Vec::new();
    let read = connection.read_to_end(&mut answer);
    tokio::time::timeout(TIMEOUT, read)
        .await
        .expect("in time")
        .expect("it is sent");
    String::from_utf8_lossy(&answer).into_owned()
}

fn status(answer: &str) -> u16 {
    let code = answer.split(' ').nth(1).unwrap_or_default();
    code.parse().unwrap_or_else(|_| panic!("{answer}"))
}

#[tokio::test]
async fn the_first_response_shows_the_devices_and_protects_itself() {
    let gateway = Gateway::start(&[]).await;
    let api = Api::of(&gateway);
    let _devices = api.devices(&gateway, &["device"]).await;
    let host = format!("host: {}", gateway.admin);
    let page = answer(&gateway, "GET /", &[&host], &[]).await;
    for part in [
        "HTTP/1.1 200",
        "content-type: text/html; charset=utf-8",
        "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self'",
        "x-frame-options: DENY",
        "x-content-type-options: nosniff",
        "referrer-policy: no-referrer",
        "cache-control: no-store",
        "<tr role=\"row\" data-key=\"device\">",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    assert!(
        !page.contains("<style") && !page.contains(" style="),
        "{page}"
    );
}

#[tokio::test]
async fn another_host_or_origin_is_refused() {
    let gateway = Gateway::start(&[]).await;
    let api = Api::of(&gateway);
    let _devices = api.devices(&gateway, &["device"]).await;
    let port = gateway.admin.port();
    let here = format!("host: localhost:{port}");
    let origin = format!("origin: http://localhost:{port}");
    let evil_host = format!("host: evil.example:{port}");
    for path in ["/", "/page/live", "/login"] {
        let refused = answer(&gateway, &format!("GET {path}"), &[&evil_host], &[]).await;
        assert_eq!(status(&refused), 403, "{refused}");
        assert!(!refused.contains("device\""), "{refused}");
    }
    let order = br#"{"key": "device"}"#;
    let kick = async |headers: &[&str]| {
        let headers = [&[&*here], headers].concat();
        status(&answer(&gateway, "POST /page/kick", &headers, order).await)
    };
    let ours = "tunnel-page: 1";
    assert_eq!(kick(&[ours, "origin: https://evil.example"]).await, 403);
    assert_eq!(kick(&[ours, "origin: http://localhost:1"]).await, 403);
    assert_eq!(kick(&[ours, "origin: null"]).await, 403);
    assert_eq!(kick(&[ours, "sec-fetch-site: cross-site"]).await, 403);
    assert_eq!(
        kick(&[ours, &origin, "sec-fetch-site: same-site"]).await,
        403
    );
    // A form of any page can send this, but not the header.
    assert_eq!(kick(&[]).await, 403);
    assert_eq!(
        status(&answer(&gateway, "GET /page/kick", &[&here, ours], &[]).await),
        405
    );
    assert_eq!(api.stats().await.tunnels_total, 1);
    assert_eq!(kick(&[ours, &origin]).await, 200);
    until_equal(async || (api.stats().await.tunnels_total, 2)).await;
}

#[tokio::test]
async fn a_page_cannot_call_the_api_itself() {
    let gateway = Gateway::start(&[]).await;
    let host = format!("host: {}", gateway.admin);
    for headers in [
        vec![
            &*host,
            "origin: https://evil.example",
            "content-type: text/plain",
        ],
        vec![&*host, "content-type: application/grpc"],
    ] {
        // An empty message: the gateway would drain.
        let call = "POST /tunnel.admin.v1.Admin/Drain";
        let refused = answer(&gateway, call, &headers, &[0; 5]).await;
        assert_eq!(status(&refused), 403, "{refused}");
    }
    assert!(!Api::of(&gateway).drain().await.draining);
}

#[tokio::test]
async fn with_admin_tokens_the_page_needs_a_login() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("admins");
    let file = file.to_str().expect("text");
    let (code, token, errors) = run(&["token", "new", "olga", "--file", file]).await;
    assert_eq!(code, 0, "{errors}");
    let token = token.trim();
    let gateway = Gateway::start(&["--admin-tokens", file]).await;
    let host = format!("host: {}", gateway.admin);
    for path in ["/page/live", "/logout", "/page/drain"] {
        let method = if path == "/page/live" { "GET" } else { "POST" };
        let headers = [&*host, "tunnel-page: 1", "cookie: tunnel-session=x"];
        let refused = answer(&gateway, &format!("{method} {path}"), &headers, b"{}").await;
        assert_eq!(status(&refused), 401, "{refused}");
    }
    let url = async |browser: &crate::browser::Browser| {
        let url = browser.client.current_url().await.expect("an address");
        url.path().to_owned()
    };
    with_browser(gateway.admin, async |browser| {
        browser.open("/").await;
        assert_eq!(url(browser).await, "/login");
        browser.find("#token:focus").await.send_keys("wrong").await.expect("a field");
        browser.click("button").await;
        let error = "document.querySelector('#error').textContent !== ''";
        browser.until(error, true).await;
        browser.find("#token:focus").await.send_keys(token).await.expect("a field");
        browser.click("button").await;
        browser.until("location.pathname", "/").await;
        browser.until("document.getElementById('connection')?.textContent", "Live").await;
        let cookies = browser.client.get_all_cookies().await.expect("cookies");
        let [cookie] = &cookies[..] else {
            panic!("{cookies:?}");
        };
        assert_eq!(cookie.http_only(), Some(true));
        assert_eq!(format!("{:?}", cookie.same_site()), "Some(Strict)");
        let html = browser.client.source().await.expect("it is shown");
        assert!(html.contains("olga") && !html.contains(token) && !html.contains(cookie.value()));
        // The operator is named by what is done.
        browser.click("#search [data-do=deny]").await;
        browser.find("#deny[open]").await;
        browser.press("stranger").await;
        browser.confirm("Denied stranger: it had no tunnel.").await;
        let by = "document.querySelector('tr[data-key=stranger] td[data-label=State] small').textContent";
        browser.until(by, " by olga").await;
        browser.click("header form button").await;
        browser.until("location.pathname", "/login").await;
        browser.open("/").await;
        assert_eq!(url(browser).await, "/login");
        // A token that is removed ends the session.
        browser.find("#token:focus").await.send_keys(token).await.expect("a field");
        browser.click("button").await;
        browser.until("document.getElementById('connection')?.textContent", "Live").await;
        std::fs::write(file, "# nobody\n").expect("it is written");
        browser.until("location.pathname", "/login").await;
        assert_eq!(browser.value("document.querySelector('tr')").await, Value::Null);
    })
    .await;
}
