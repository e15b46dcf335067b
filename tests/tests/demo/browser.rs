//! Pages in a real browser: headless Chromium, driven by ChromeDriver.

use std::{
    env,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use fantoccini::{
    Client, ClientBuilder, Locator,
    actions::{InputSource, KeyAction, KeyActions},
    elements::Element,
    wd::{WebDriverCompatibleCommand, WindowHandle},
};
use hyper_util::client::legacy::connect::HttpConnector;
use lock_tests::{end_with_this_process, eventually, temporary_directory};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The default bound, such as for the load of a page on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Pages narrower than this are shown as on a phone.
const PHONE: u32 = 600;

/// A browser with one page at first. It ends with the value, and with this process.
pub(crate) struct Browser {
    client: Client,
    origin: String,
    driver: Child,
    _profile: TempDir,
}

/// The size and colours of a page.
#[derive(Clone, Copy)]
pub(crate) struct Look {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) dark: bool,
}

pub(crate) const DESKTOP: Look = Look { width: 1100, height: 900, dark: false };
pub(crate) const TELEPHONE: Look = Look { width: 390, height: 844, dark: false };

impl Browser {
    /// Opens the page of a demo.
    pub(crate) async fn open(url: &str, look: Look) -> Self {
        let profile = temporary_directory("chromium-");
        let (driver, port) = start_driver();
        let capabilities = json!({
            "browserName": "chrome",
            "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
            "goog:chromeOptions": { "args": [
                "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
                "--disable-background-networking", "--disable-component-update", "--disable-sync",
                "--hide-scrollbars", "--force-prefers-reduced-motion",
                format!("--user-data-dir={}", profile.path().display()),
            ] },
        });
        let Value::Object(capabilities) = capabilities else { unreachable!() };
        let client = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities)
            .connect(&format!("http://127.0.0.1:{port}"))
            .await
            .expect("ChromeDriver starts a Chromium: `tests/run` installs both");
        let origin = url.trim_end_matches('/').to_owned();
        let browser = Self { client, origin, driver, _profile: profile };
        browser.look(look).await;
        browser.go(url).await;
        browser
    }

    async fn go(&self, url: &str) {
        self.client.goto(url).await.expect("the page loads");
        self.shows("doing", "You hold nothing").await;
    }

    /// Reloads the page, as its user does with a key.
    pub(crate) async fn reload(&self) {
        self.client.refresh().await.expect("the page loads again");
    }

    /// Opens the page in a second window, and switches to it.
    pub(crate) async fn open_another(&self) {
        let window = self.client.new_window(true).await.expect("a page is opened");
        self.look_at(window.handle).await;
        self.client.goto(&self.origin).await.expect("the page loads");
    }

    /// All pages that are open.
    pub(crate) async fn pages(&self) -> Vec<WindowHandle> {
        self.client.windows().await.expect("pages can be listed")
    }

    pub(crate) async fn look_at(&self, page: WindowHandle) {
        self.client.switch_to_window(page).await.expect("the page is there");
    }

    /// Closes the current page, which must not be the last one.
    pub(crate) async fn close_one(&self) {
        self.client.close_window().await.expect("a page is closed");
    }

    /// Sets the size and the colours of the page.
    pub(crate) async fn look(&self, look: Look) {
        let Look { width, height, dark } = look;
        self.tell_chromium(
            "Emulation.setDeviceMetricsOverride",
            json!({
                "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < PHONE,
            }),
        )
        .await;
        let scheme = if dark { "dark" } else { "light" };
        self.tell_chromium(
            "Emulation.setEmulatedMedia",
            json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] }),
        )
        .await;
    }

    /// The text of an element.
    pub(crate) async fn text(&self, id: &str) -> String {
        let text = self.run("return document.getElementById(arguments[0]).textContent", id).await;
        text.as_str().unwrap_or_default().to_owned()
    }

    /// Waits until the text of an element contains this.
    #[track_caller]
    pub(crate) fn shows(&self, id: &str, wanted: &str) -> impl Future<Output = ()> {
        self.shows_within(PATIENCE, id, wanted)
    }

    /// The same, with a bound.
    #[track_caller]
    pub(crate) fn shows_within(
        &self,
        limit: Duration,
        id: &str,
        wanted: &str,
    ) -> impl Future<Output = ()> {
        eventually(limit, move || async move {
            let text = self.text(id).await;
            if text.contains(wanted) { Ok(()) } else { Err(format!("`{id}`: {text:?}")) }
        })
    }

    /// Presses a button with the pointer, and returns the time of that.
    pub(crate) async fn press(&self, id: &str) -> Instant {
        // Not under the bar that stays at the top.
        let scroll = "document.getElementById(arguments[0]).scrollIntoView({ block: 'center' })";
        self.run(scroll, id).await;
        let button = self.element(id).await;
        let at = Instant::now();
        button.click().await.unwrap_or_else(|error| panic!("`{id}` is pressed: {error}"));
        at
    }

    /// Waits until a button is enabled.
    pub(crate) async fn allows(&self, id: &str) {
        eventually(PATIENCE, move || async move {
            let disabled = self.element(id).await.attr("aria-disabled").await;
            match disabled {
                Ok(Some(disabled)) if disabled == "false" => Ok(()),
                other => Err(format!("`{id}` is disabled: {other:?}")),
            }
        })
        .await;
    }

    /// Chooses an entry of a list.
    pub(crate) async fn choose(&self, id: &str, value: &str) {
        let list = self.element(id).await;
        list.select_by_value(value).await.expect("the list has this entry");
    }

    /// Replaces the text of a field, and leaves it.
    pub(crate) async fn write(&self, id: &str, text: &str) {
        let field = self.element(id).await;
        field.clear().await.expect("the field can be written into");
        field.send_keys(text).await.expect("the field takes keys");
        self.run("document.getElementById(arguments[0]).blur()", id).await;
    }

    /// Presses a key, wherever the focus is.
    pub(crate) async fn key(&self, key: char) {
        let keys = KeyActions::new("keyboard".to_owned())
            .then(KeyAction::Down { value: key })
            .then(KeyAction::Up { value: key });
        self.client.perform_actions(keys).await.expect("a key is pressed");
    }

    /// The id of the element that has the focus.
    pub(crate) async fn focus(&self) -> String {
        let id = self.run("return document.activeElement.id", "").await;
        id.as_str().unwrap_or_default().to_owned()
    }

    /// Runs a script with one argument, and returns its result.
    pub(crate) async fn run(&self, script: &str, argument: &str) -> Value {
        let outcome = self.client.execute(script, vec![json!(argument)]).await;
        outcome.unwrap_or_else(|error| panic!("`{script}` runs: {error}"))
    }

    /// Runs an asynchronous script, which calls its last argument when it is done.
    pub(crate) async fn run_to_its_end(&self, script: &str) -> Value {
        self.client.execute_async(script, Vec::new()).await.expect("the script runs")
    }

    /// Runs a script that the page's own policy would refuse.
    pub(crate) async fn inject(&self, script: &str) {
        self.tell_chromium("Runtime.evaluate", json!({ "expression": script })).await;
    }

    /// Takes a picture of the page from the start of one element to the end of another.
    pub(crate) async fn picture(&self, look: Look, first: &str, last: &str, file: &Path) {
        // High enough that nothing is cut off.
        self.look(Look { height: 6000, ..look }).await;
        let bounds = self
            .run(
                "const [first, last] = arguments[0].split(' ').map((selector) =>
                    document.querySelector(selector).getBoundingClientRect());
                 return [first.top + scrollY, last.bottom + scrollY]",
                &format!("{first} {last}"),
            )
            .await;
        let margin = 12.0;
        let (top, bottom) = (bounds[0].as_f64().unwrap_or(0.0), bounds[1].as_f64().unwrap_or(0.0));
        let clip = json!({
            "x": 0, "y": (top - margin).max(0.0), "width": look.width,
            "height": bottom - top + 2.0 * margin, "scale": 1,
        });
        let picture = self
            .tell_chromium(
                "Page.captureScreenshot",
                json!({ "format": "webp", "quality": 80, "clip": clip }),
            )
            .await;
        let data = picture["data"].as_str().expect("a picture is text");
        std::fs::write(file, base64(data)).expect("the picture can be written");
        self.look(look).await;
    }

    /// Closes the page, and fails if one of its scripts has failed, or if it has sent a request to
    /// another host.
    pub(crate) async fn close(mut self) {
        for entry in self.log("browser").await {
            let text = entry["message"].as_str().unwrap_or_default();
            assert_eq!(entry["level"], "INFO", "in the console: {text}");
        }
        let mut requests = 0;
        for entry in self.log("performance").await {
            let text = entry["message"].as_str().unwrap_or_default();
            let message: Value = serde_json::from_str(text).expect("an event is JSON");
            let message = &message["message"];
            let request = &message["params"];
            // A browser starts with a page of its own, which has frames.
            let by = request["documentURL"].as_str().unwrap_or_default();
            let is_browsers =
                ["chrome:", "chrome-untrusted:"].iter().any(|own| by.starts_with(own));
            if message["method"] == "Network.requestWillBeSent" && !is_browsers {
                let url = request["request"]["url"].as_str().unwrap_or_default();
                assert!(url.starts_with(&self.origin) || url.starts_with("data:"), "asked {url}");
                requests += 1;
            }
        }
        assert!(requests >= 5, "the log holds the requests of the page itself: {requests}");
        self.client.clone().close().await.expect("the browser ends");
        self.driver.kill().expect("ChromeDriver can be stopped");
        self.driver.wait().expect("ChromeDriver is a child");
    }

    async fn element(&self, id: &str) -> Element {
        let found = self.client.find(Locator::Id(id)).await;
        found.unwrap_or_else(|error| panic!("`{id}` is on the page: {error}"))
    }

    async fn log(&self, kind: &str) -> Vec<Value> {
        let log = self.ask_driver("se/log", json!({ "type": kind })).await;
        log.as_array().cloned().unwrap_or_default()
    }

    async fn tell_chromium(&self, command: &str, parameters: Value) -> Value {
        let body = json!({ "cmd": command, "params": parameters });
        self.ask_driver("goog/cdp/execute", body).await
    }

    async fn ask_driver(&self, path: &'static str, body: Value) -> Value {
        let answer = self.client.issue_cmd(OfChromeDriver { path, body }).await;
        answer.unwrap_or_else(|error| panic!("ChromeDriver answers to {path}: {error}"))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Chromium ends with it.
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// Commands that the WebDriver standard lacks.
#[derive(Debug)]
struct OfChromeDriver {
    path: &'static str,
    body: Value,
}

impl WebDriverCompatibleCommand for OfChromeDriver {
    fn endpoint(
        &self,
        base: &url::Url,
        session: Option<&str>,
    ) -> Result<url::Url, url::ParseError> {
        base.join(&format!("session/{}/{}", session.unwrap_or_default(), self.path))
    }

    fn method_and_body(&self, _: &url::Url) -> (http::Method, Option<String>) {
        (http::Method::POST, Some(self.body.to_string()))
    }
}

/// Starts ChromeDriver, on a port that it chooses and prints.
fn start_driver() -> (Child, u16) {
    let program = env::var("CHROMEDRIVER").unwrap_or_else(|_| "chromedriver".to_owned());
    let mut driver = end_with_this_process(&mut Command::new(&program))
        .arg("--port=0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| {
            panic!("`{program}` does not start ({error}): `tests/run` installs it")
        });
    let mut lines = BufReader::new(driver.stdout.take().expect("its output is a pipe")).lines();
    let port = lines
        .by_ref()
        .map_while(Result::ok)
        .find_map(|line| {
            let (_, port) = line.split_once("started successfully on port ")?;
            port.trim_end_matches('.').parse().ok()
        })
        .expect("ChromeDriver names its port");
    // Otherwise it would block when the pipe is full.
    std::thread::spawn(move || lines.for_each(drop));
    (driver, port)
}

fn base64(text: &str) -> Vec<u8> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).expect("a picture is base64")
}
