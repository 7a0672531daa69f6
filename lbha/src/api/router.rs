//! The paths of the admin interface: what is answered, apart from the socket that it is answered on.

use std::{collections::BTreeSet, sync::Arc};

use axum::{
    Router,
    extract::{Query, State},
    http::{Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::get,
};
use lbha_common::conntrack::Phase;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::error;

use crate::api::{
    View,
    types::{FlowQuery, NatQuery},
};

/// Everything that can be asked; the 404 lists it.
pub const PATHS: [&str; 8] = [
    "/healthz",
    "/readyz",
    "/v1/status",
    "/v1/services",
    "/v1/servers",
    "/v1/flows",
    "/v1/nat",
    "/v1/drops",
];

/// `limit` of [`FlowQuery`] and [`NatQuery`] when the client names none, and the most that it gets.
pub const DEFAULT_FLOWS: usize = 1000;
pub const MAX_FLOWS: usize = 100_000;

/// Values of `state` in [`FlowQuery`].
pub const FLOW_STATES: [&str; 10] = [
    Phase::TcpSyn.as_str(),
    Phase::TcpEstablished.as_str(),
    Phase::TcpFinWait.as_str(),
    Phase::TcpTimeWait.as_str(),
    Phase::TcpReset.as_str(),
    Phase::UdpUnreplied.as_str(),
    Phase::Udp.as_str(),
    Phase::MasqueradeOpening.as_str(),
    Phase::MasqueradeClosing.as_str(),
    Phase::Icmp.as_str(),
];

/// Values of `protocol` in [`NatQuery`].
pub const NAT_PROTOCOLS: [&str; 3] = ["tcp", "udp", "icmp"];

/// The routes over a view; the same for every socket that serves them.
pub fn router(view: Arc<dyn View>) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/v1/status", get(async |State(app): State<App>| app.json(|v| v.status()).await))
        .route("/v1/services", get(async |State(app): State<App>| app.json(|v| v.services()).await))
        .route("/v1/servers", get(async |State(app): State<App>| app.json(|v| v.servers()).await))
        .route("/v1/flows", get(flows))
        .route("/v1/nat", get(nat))
        .route("/v1/drops", get(async |State(app): State<App>| app.json(|v| v.drops()).await))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .with_state(App { view, dumps: Arc::new(Semaphore::new(MAX_DUMPS)) })
}

#[derive(Clone)]
struct App {
    view: Arc<dyn View>,
    /// A dump of the flow table goes on after its client gave up: a few at a time, or impatient clients that ask
    /// again and again would occupy every core of a host that has packets to forward.
    dumps: Arc<Semaphore>,
}

impl App {
    /// Asks the view on a blocking thread. Serialising happens there too: a long list would stall the event loop.
    async fn json<T, F>(&self, ask: F) -> Response
    where
        T: Serialize,
        F: FnOnce(&dyn View) -> T + Send + 'static,
    {
        let view = Arc::clone(&self.view);
        let answer = tokio::task::spawn_blocking(move || serde_json::to_vec(&ask(&*view))).await;
        match answer {
            Ok(Ok(body)) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
            Ok(Err(error)) => internal(&error),
            Err(error) => internal(&error),
        }
    }

    async fn dump_permit(&self) -> Option<OwnedSemaphorePermit> {
        // Only a closed semaphore refuses, and nothing closes this one.
        Arc::clone(&self.dumps).acquire_owned().await.ok()
    }
}

async fn healthz() -> Response {
    axum::Json(json!({ "status": "ok" })).into_response()
}

async fn readyz(State(app): State<App>) -> Response {
    let view = Arc::clone(&app.view);
    match tokio::task::spawn_blocking(move || view.ready()).await {
        Ok(ready) => {
            let code = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            (code, axum::Json(json!({ "ready": ready }))).into_response()
        }
        Err(error) => internal(&error),
    }
}

async fn flows(State(app): State<App>, uri: Uri) -> Response {
    let query = match flow_query(&uri) {
        Ok(query) => query,
        Err(message) => return refusal(StatusCode::BAD_REQUEST, &message),
    };
    let permit = app.dump_permit().await;
    app.json(move |view| {
        let flows = view.flows(&query);
        drop(permit);
        flows
    })
    .await
}

async fn nat(State(app): State<App>, uri: Uri) -> Response {
    let query = match nat_query(&uri) {
        Ok(query) => query,
        Err(message) => return refusal(StatusCode::BAD_REQUEST, &message),
    };
    let permit = app.dump_permit().await;
    app.json(move |view| {
        let nat = view.nat(&query);
        drop(permit);
        nat
    })
    .await
}

fn flow_query(uri: &Uri) -> Result<FlowQuery, String> {
    let mut query: FlowQuery = parameters(uri, &["limit", "service", "server", "client", "state"])?;
    known("state", query.state.as_deref(), &FLOW_STATES)?;
    query.limit = Some(limit(query.limit));
    Ok(query)
}

fn nat_query(uri: &Uri) -> Result<NatQuery, String> {
    let mut query: NatQuery =
        parameters(uri, &["limit", "source", "external", "remote", "protocol"])?;
    known("protocol", query.protocol.as_deref(), &NAT_PROTOCOLS)?;
    query.limit = Some(limit(query.limit));
    Ok(query)
}

/// Parameters are checked by name: one that is misspelt would select everything, and look as if it had worked.
fn parameters<T: DeserializeOwned>(uri: &Uri, names: &[&str]) -> Result<T, String> {
    let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri).map_err(words)?;
    let unknown: BTreeSet<_> =
        pairs.iter().map(|(key, _)| key.as_str()).filter(|key| !names.contains(key)).collect();
    if let Some(key) = unknown.first() {
        return Err(format!("unknown parameter `{key}`; known are {}", names.join(", ")));
    }
    let Query(query) = Query::<T>::try_from_uri(uri).map_err(words)?;
    Ok(query)
}

fn known(what: &str, value: Option<&str>, words: &[&str]) -> Result<(), String> {
    match value {
        Some(value) if !words.contains(&value) => {
            Err(format!("unknown {what} `{value}`; known are {}", words.join(", ")))
        }
        _ => Ok(()),
    }
}

fn limit(asked: Option<usize>) -> usize {
    asked.unwrap_or(DEFAULT_FLOWS).min(MAX_FLOWS)
}

fn words(rejection: axum::extract::rejection::QueryRejection) -> String {
    let mut text = rejection.body_text();
    // axum's text begins with a sentence that says no more than the status code does.
    if let Some((_, detail)) = text.split_once("query string: ") {
        text = detail.to_owned();
    }
    format!("bad query: {text}")
}

async fn unknown_path(uri: Uri) -> Response {
    let body = json!({ "error": format!("no such path: {}", uri.path()), "paths": PATHS });
    (StatusCode::NOT_FOUND, axum::Json(body)).into_response()
}

async fn wrong_method(method: Method, uri: Uri) -> Response {
    let message = format!("{} takes GET, not {method}", uri.path());
    let answer = refusal(StatusCode::METHOD_NOT_ALLOWED, &message);
    ([(header::ALLOW, "GET, HEAD")], answer).into_response()
}

fn internal(error: &dyn std::error::Error) -> Response {
    error!(%error, "the admin interface could not answer");
    refusal(StatusCode::INTERNAL_SERVER_ERROR, "internal error; the daemon's log has it")
}

fn refusal(code: StatusCode, message: &str) -> Response {
    (code, axum::Json(json!({ "error": message }))).into_response()
}

/// Dumps of the flow table that run at a time.
const MAX_DUMPS: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &str) -> Result<FlowQuery, String> {
        flow_query(&format!("/v1/flows?{query}").parse().unwrap())
    }

    #[test]
    fn flow_queries_have_a_default_limit_and_a_largest_one() {
        assert_eq!(parse("").unwrap().limit, Some(DEFAULT_FLOWS));
        assert_eq!(parse("limit=5").unwrap().limit, Some(5));
        assert_eq!(parse("limit=100000000").unwrap().limit, Some(MAX_FLOWS));
    }

    #[test]
    fn flow_queries_take_every_filter() {
        let query = parse("service=a%20b&server=web1&client=203.0.113.7&state=established&limit=1")
            .unwrap();
        assert_eq!(
            query,
            FlowQuery {
                limit: Some(1),
                service: Some("a b".into()),
                server: Some("web1".into()),
                client: Some("203.0.113.7".parse().unwrap()),
                state: Some("established".into()),
            }
        );
    }

    #[test]
    fn bad_flow_queries_say_what_is_bad() {
        for (query, expected) in [
            ("sevice=www", "unknown parameter `sevice`; known are limit, service"),
            ("state=open", "unknown state `open`; known are syn, established"),
            ("limit=many", "bad query: limit: invalid digit found in string"),
            ("limit=-1", "bad query: limit: invalid digit found in string"),
            ("client=nobody", "bad query: client: invalid IP address syntax"),
            ("limit=1&limit=2", "bad query: duplicate field `limit`"),
        ] {
            let error = parse(query).unwrap_err();
            assert!(error.starts_with(expected), "{query}: {error}");
        }
    }
    fn parse_nat(query: &str) -> Result<NatQuery, String> {
        nat_query(&format!("/v1/nat?{query}").parse().unwrap())
    }

    #[test]
    fn nat_queries_take_every_filter() {
        assert_eq!(parse_nat("").unwrap().limit, Some(DEFAULT_FLOWS));
        assert_eq!(parse_nat("limit=100000000").unwrap().limit, Some(MAX_FLOWS));
        let query = "source=192.168.1.10&external=2001:db8::116&remote=198.51.100.1&protocol=udp";
        assert_eq!(
            parse_nat(&format!("{query}&limit=3")).unwrap(),
            NatQuery {
                limit: Some(3),
                source: Some("192.168.1.10".parse().unwrap()),
                external: Some("2001:db8::116".parse().unwrap()),
                remote: Some("198.51.100.1".parse().unwrap()),
                protocol: Some("udp".into()),
            }
        );
    }

    #[test]
    fn bad_nat_queries_say_what_is_bad() {
        for (query, expected) in [
            ("client=192.0.2.1", "unknown parameter `client`; known are limit, source"),
            ("protocol=sctp", "unknown protocol `sctp`; known are tcp, udp, icmp"),
            ("limit=many", "bad query: limit: invalid digit found in string"),
            ("source=web1", "bad query: source: invalid IP address syntax"),
            ("external=192.0.2.1:80", "bad query: external: invalid IP address syntax"),
            ("remote=", "bad query: remote: invalid IP address syntax"),
            ("remote=::1&remote=::2", "bad query: duplicate field `remote`"),
        ] {
            let error = parse_nat(query).unwrap_err();
            assert!(error.starts_with(expected), "{query}: {error}");
        }
    }
}
