//! Chromium without a window, driven over WebDriver.

use std::fmt;
use std::io::{Write as _, stderr};
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fantoccini::elements::Element;
use fantoccini::key::Key;
use fantoccini::wd::WebDriverCompatibleCommand;
use fantoccini::{Client, ClientBuilder, Locator};
use futures::FutureExt as _;
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use tunnel_process::{Process, Show, find_program};

use crate::programs::TIMEOUT;

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(25);

/// A browser that shows pages of one gateway.
pub(crate) struct Browser {
    pub(crate) client: Client,
    admin: SocketAddr,
}

/// A command of Chromium's own protocol.
#[derive(Debug)]
struct DevTools(&'static str, Value);

impl WebDriverCompatibleCommand for DevTools {
    fn endpoint(
        &self,
        base: &url::Url,
        session: Option<&str>,
    ) -> Result<url::Url, url::ParseError> {
        let session = session.unwrap_or_default();
        base.join(&format!("session/{session}/goog/cdp/execute"))
    }

    fn method_and_body(&self, _: &url::Url) -> (http::Method, Option<String>) {
        let body = json!({"cmd": self.0, "params": self.1});
        (http::Method::POST, Some(body.to_string()))
    }
}

/// The browser and its driver, if both are installed.
fn programs() -> Option<(PathBuf, PathBuf)> {
    let found = find_program("chromium").zip(find_program("chromedriver"));
    if found.is_none() {
        let advice = "apt-get install chromium chromium-driver";
        assert!(
            std::env::var_os("CI").is_none_or(|value| value.is_empty()),
            "there is no Chromium with a driver, and with CI set nothing is skipped: {advice}"
        );
        // Not with `eprintln!`, whose lines are shown for tests that fail alone.
        let _ = writeln!(stderr(), "SKIPPED a test of the page: {advice}");
    }
    found
}

/// Runs a test with a browser for the page at an address, if there is a browser.
pub(crate) async fn with_browser(admin: SocketAddr, test: impl AsyncFnOnce(&Browser)) {
    let Some((chromium, driver)) = programs() else {
        return;
    };
    let mut command = Command::new(driver);
    command.arg("--port=0").stdin(Stdio::null());
    let mut driver = Process::start(&mut command, Show::Nothing).expect("the driver starts");
    let port = loop {
        let line = driver.next_stdout_line().await.expect("the driver listens");
        let port = line.split_once("started successfully on port ");
        if let Some((_, port)) = port {
            break port.trim_end_matches('.').to_owned();
        }
    };
    let profile = tempfile::tempdir().expect("a directory");
    let arguments = [
        "--headless=new",
        // Tests may run as root.
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--no-first-run",
        "--window-size=1400,1000",
        &format!("--user-data-dir={}", profile.path().display()),
    ];
    let options = json!({"binary": chromium, "args": arguments});
    let capabilities = json!({"browserName": "chrome", "goog:chromeOptions": options});
    let Value::Object(capabilities) = capabilities else {
        unreachable!("it is an object");
    };
    let client = ClientBuilder::new(HttpConnector::new())
        .capabilities(capabilities)
        .connect(&format!("http://127.0.0.1:{port}"))
        .await
        .expect("the browser starts");
    let browser = Browser { client, admin };
    // The browser outlives its driver if its session is not ended.
    let ended = AssertUnwindSafe(test(&browser)).catch_unwind().await;
    let closed = browser.client.close().await;
    if let Err(panic) = ended {
        std::panic::resume_unwind(panic);
    }
    closed.expect("the browser ends");
}

/// Waits until something is equal to what it should be.
pub(crate) async fn until_equal<T: PartialEq + fmt::Debug>(mut both: impl AsyncFnMut() -> (T, T)) {
    let began = Instant::now();
    loop {
        let (left, right) = both().await;
        if left == right {
            return;
        }
        assert!(began.elapsed() < TIMEOUT, "{left:#?}\nis not\n{right:#?}");
        tokio::time::sleep(POLL).await;
    }
}

impl Browser {
    /// Opens an address of the gateway.
    pub(crate) async fn open(&self, path: &str) {
        let url = format!("http://{}{path}", self.admin);
        self.client.goto(&url).await.expect("it is shown");
    }

    /// The value of an expression.
    pub(crate) async fn value(&self, expression: &str) -> Value {
        let script = format!("return {expression};");
        let value = self.client.execute(&script, Vec::new()).await;
        value.unwrap_or_else(|error| panic!("{expression}: {error}"))
    }

    /// Waits until an expression has a value.
    pub(crate) async fn until(&self, expression: &str, wanted: impl Into<Value>) {
        let wanted = wanted.into();
        until_equal(async || (self.value(expression).await, wanted.clone())).await;
    }

    /// Waits for an element.
    pub(crate) async fn find(&self, css: &str) -> Element {
        let found = self.client.wait().at_most(TIMEOUT);
        let found = found.for_element(Locator::Css(css)).await;
        found.unwrap_or_else(|error| panic!("{css}: {error}"))
    }

    /// Clicks on an element.
    pub(crate) async fn click(&self, css: &str) {
        let clicked = self.find(css).await.click().await;
        clicked.unwrap_or_else(|error| panic!("{css}: {error}"));
    }

    /// Types into the element that has the focus.
    pub(crate) async fn press(&self, keys: &str) {
        let active = self.client.active_element().await.expect("it has a focus");
        active.send_keys(keys).await.expect("it takes keys");
    }

    /// Presses Tab until an element has the focus.
    pub(crate) async fn tab_to(&self, css: &str) {
        let tab = char::from(Key::Tab).to_string();
        for _ in 0..100 {
            self.press(&tab).await;
            let expression = format!("document.activeElement.matches({})", json!(css));
            if self.value(&expression).await == true {
                return;
            }
        }
        panic!("Tab does not lead to {css}");
    }

    /// Clicks on a button of a device.
    pub(crate) async fn click_of(&self, key: &str, action: &str) {
        let css = format!("tr[data-key={}] button[data-do={action}]", json!(key));
        self.click(&css).await;
    }

    /// Confirms the open dialog, and waits until it is said what was done.
    pub(crate) async fn confirm(&self, said: &str) {
        self.click("dialog[open] button.danger").await;
        self.until("document.querySelector('dialog[open]')", Value::Null)
            .await;
        self.until("document.getElementById('said').textContent", said)
            .await;
    }

    /// Sends a command of Chromium's own protocol.
    pub(crate) async fn dev_tools(&self, command: &'static str, parameters: Value) -> Value {
        let answer = self.client.issue_cmd(DevTools(command, parameters)).await;
        answer.unwrap_or_else(|error| panic!("{command}: {error}"))
    }
}
