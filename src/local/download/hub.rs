//! The hub's interface, as far as a download needs it.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use ureq::http::{Response, StatusCode};
use ureq::typestate::WithoutBody;
use ureq::{Agent, Body, RequestBuilder};

use super::DownloadError;
use crate::files::read_text;
use crate::visible::shown;

/// How long an answer may bring no byte.
const STALLED: Duration = Duration::from_secs(60);
/// How long the hub may take for the beginning of an answer.
const ANSWER: Duration = Duration::from_secs(30);
/// The largest file: more than any has, so that sums of sizes have room.
const LARGEST_FILE: u64 = 1 << 50;
/// The largest list of files.
const LARGEST_LIST: u64 = 32 << 20;
/// The longest file with a token.
const LARGEST_TOKEN: u64 = 1 << 16;
/// Redirections that are followed for a file's tag.
const REDIRECTIONS: usize = 5;

/// A hub of models.
#[derive(Clone)]
pub struct Hub {
    /// Its address.
    pub endpoint: String,
    /// Who asks.
    pub token: Option<String>,
    /// Half of the pause before the first repetition of a request that failed; pauses double.
    pub pause: Duration,
}

/// What the hub says of a model.
#[derive(Debug)]
pub(super) struct Info {
    pub(super) commit: String,
    pub(super) files: Vec<String>,
}

/// What it says of a file.
#[derive(Debug)]
pub(super) struct Remote {
    /// Its name among the blobs.
    pub(super) etag: String,
    pub(super) size: u64,
}

/// Why a request failed.
#[derive(Debug)]
pub(super) enum HubError {
    Unknown,
    Gated,
    /// For good.
    Strange(String),
    /// There is no way to it, unless the network comes back.
    Unreachable(String),
    /// It may go better the next time.
    Interrupted(String),
}

impl HubError {
    pub(super) fn of_io(error: &io::Error) -> Self {
        Self::Interrupted(error.to_string())
    }

    /// True if the same request may go better at once.
    pub(super) fn may_pass(&self) -> bool {
        matches!(self, Self::Interrupted(_))
    }

    /// True if a download that had begun may be resumed later.
    pub(super) fn may_be_resumed(&self) -> bool {
        matches!(self, Self::Interrupted(_) | Self::Unreachable(_))
    }

    pub(super) fn about(self, hub: &Hub, name: &str) -> DownloadError {
        let (endpoint, name) = (shown(&hub.endpoint), name.to_owned());
        match self {
            Self::Unknown => DownloadError::Unknown { endpoint, name },
            Self::Gated => DownloadError::Gated { endpoint, name },
            Self::Strange(reason) | Self::Interrupted(reason) | Self::Unreachable(reason) => {
                DownloadError::Network { endpoint, reason: shown(&reason) }
            }
        }
    }
}

#[derive(Deserialize)]
struct Listed {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

impl Hub {
    /// The hub of the environment: `HF_ENDPOINT`, with the token of `HF_TOKEN`, of the file `HF_TOKEN_PATH`, or of `token` in
    /// `home`, the hub's folder. `None` in offline mode (`HF_HUB_OFFLINE`, `TRANSFORMERS_OFFLINE`).
    pub fn of_environment(home: Option<&Path>) -> Option<Self> {
        let named = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
        let is_on = |name: &str| {
            named(name).is_some_and(|value| !["0", "false", "no", "off"].contains(&value.to_ascii_lowercase().as_str()))
        };
        if is_on("HF_HUB_OFFLINE") || is_on("TRANSFORMERS_OFFLINE") {
            return None;
        }
        let endpoint = named("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned());
        let file: Option<PathBuf> = named("HF_TOKEN_PATH").map(Into::into).or_else(|| Some(home?.join("token")));
        let of_file = || read_text(file.as_deref()?, LARGEST_TOKEN).ok();
        let token = named("HF_TOKEN").or_else(of_file).map(|token| token.trim().to_owned());
        let token = token.filter(|token| !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()));
        Some(Self { endpoint: endpoint.trim_end_matches('/').to_owned(), token, pause: Duration::from_millis(500) })
    }

    fn agent(redirections: u32) -> Agent {
        let config = Agent::config_builder()
            .timeout_connect(Some(ANSWER))
            .timeout_send_request(Some(ANSWER))
            .timeout_recv_response(Some(ANSWER))
            .timeout_per_read(Some(STALLED))
            .http_status_as_error(false)
            .max_redirects(redirections)
            .max_redirects_will_error(false)
            .redirect_auth_headers(ureq::config::RedirectAuthHeaders::SameHost)
            .user_agent(concat!("paceline/", env!("CARGO_PKG_VERSION")));
        config.build().into()
    }

    fn get(&self, agent: &Agent, url: &str, range: Option<String>) -> Result<Response<Body>, HubError> {
        self.ask(agent.get(url), url, range)
    }

    fn ask(
        &self,
        mut request: RequestBuilder<WithoutBody>,
        url: &str,
        range: Option<String>,
    ) -> Result<Response<Body>, HubError> {
        if let Some(token) = self.token.as_ref().filter(|_| url.starts_with(&self.endpoint)) {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if let Some(range) = range {
            request = request.header("range", range);
        }
        let response = request.call().map_err(|error| match error {
            ureq::Error::BadUri(_) | ureq::Error::Http(_) => HubError::Strange(error.to_string()),
            ureq::Error::Io(ref cause) if is_break(cause) => HubError::Interrupted(error.to_string()),
            // No name, no way, no answer in time, no trust.
            error => HubError::Unreachable(error.to_string()),
        })?;
        match response.status() {
            status if status.is_success() || status.is_redirection() => Ok(response),
            StatusCode::FORBIDDEN => Err(HubError::Gated),
            StatusCode::UNAUTHORIZED | StatusCode::NOT_FOUND => Err(match response.headers().get("x-error-code") {
                Some(code) if code == "GatedRepo" => HubError::Gated,
                _ => HubError::Unknown,
            }),
            status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                Err(HubError::Interrupted(format!("it answers {status}")))
            }
            status => Err(HubError::Strange(format!("it answers {status}"))),
        }
    }

    /// The commit and the files of a model's `main`.
    pub(super) fn info(&self, name: &str) -> Result<Info, HubError> {
        let url = format!("{}/api/models/{name}/revision/main", self.endpoint);
        let mut response = self.get(&Self::agent(REDIRECTIONS as u32), &url, None)?;
        let mut text = Vec::new();
        let mut body = response.body_mut().as_reader().take(LARGEST_LIST);
        body.read_to_end(&mut text).map_err(|error| HubError::of_io(&error))?;
        let listed: Listed = serde_json::from_slice(&text)
            .map_err(|error| HubError::Strange(format!("its list of files is not one: {error}")))?;
        let files = listed.siblings.into_iter().map(|sibling| sibling.rfilename).collect();
        Ok(Info { commit: tag(&listed.sha, "commit")?, files })
    }

    fn url(&self, name: &str, commit: &str, file: &str) -> String {
        let encoded: String = file.bytes().map(encoded).collect();
        format!("{}/{name}/resolve/{commit}/{encoded}", self.endpoint)
    }

    /// A file's tag and size.
    pub(super) fn file(&self, name: &str, commit: &str, file: &str) -> Result<Remote, HubError> {
        let agent = Self::agent(0);
        let mut url = self.url(name, commit, file);
        for _ in 0..=REDIRECTIONS {
            let response = self.ask(agent.head(&url), &url, None)?;
            let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
            let etag = header("x-linked-etag").or_else(|| header("etag")).map(|etag| etag.trim_start_matches("W/"));
            // Of a large file the hub knows both, and then sends elsewhere for it.
            let linked = header("x-linked-size").and_then(|size| size.parse().ok());
            let plain = header("content-length").filter(|_| response.status() == StatusCode::OK);
            let size: Option<u64> = linked.or_else(|| plain?.parse().ok());
            match (etag, size, header("location")) {
                (Some(_), Some(size), _) if size > LARGEST_FILE => {
                    return Err(HubError::Strange(format!("{} is said to have {size} bytes", shown(file))));
                }
                (Some(etag), Some(size), _) => {
                    return Ok(Remote { etag: tag(etag.trim_matches('"'), "tag")?, size });
                }
                (_, _, Some(place)) if response.status().is_redirection() && place.starts_with('/') => {
                    url = format!("{}{place}", self.endpoint);
                }
                _ => return Err(HubError::Strange(format!("it says neither tag nor size of {}", shown(file)))),
            }
        }
        Err(HubError::Strange("it sends in circles".to_owned()))
    }

    /// A file's bytes from `from` on, and whether they begin at the file's start after all.
    pub(super) fn read(
        &self,
        name: &str,
        commit: &str,
        file: &str,
        from: u64,
    ) -> Result<(bool, impl Read + 'static), HubError> {
        let range = format!("bytes={from}-");
        let response = self.get(&Self::agent(10), &self.url(name, commit, file), Some(range))?;
        let begins = response.headers().get("content-range").and_then(|range| {
            let (first, _) = range.to_str().ok()?.strip_prefix("bytes ")?.split_once('-')?;
            first.parse::<u64>().ok()
        });
        let from_start = match (response.status(), begins) {
            (StatusCode::PARTIAL_CONTENT, Some(begins)) if begins == from => false,
            (StatusCode::OK, _) => true,
            (status, _) => return Err(HubError::Strange(format!("it answers {status} for a part of a file"))),
        };
        Ok((from_start, response.into_body().into_reader()))
    }
}

/// True if a connection broke that was there.
fn is_break(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    [BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof].contains(&error.kind())
}

/// A commit or tag that can be a file's name.
fn tag(text: &str, what: &str) -> Result<String, HubError> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if (1..=128).contains(&text.len()) && text.bytes().all(is_plain) {
        Ok(text.to_owned())
    } else {
        Err(HubError::Strange(format!("its {what} is \"{}\"", shown(text))))
    }
}

/// A byte of a path in an address.
fn encoded(byte: u8) -> String {
    match byte {
        b'/' | b'.' | b'-' | b'_' | b'~' => char::from(byte).to_string(),
        byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    }
}
