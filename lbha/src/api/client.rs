//! The client side of the admin interface, with errors that tell an operator what to do.

use std::{
    fs, io,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
    time::Duration,
};

use http_body_util::{BodyExt, Empty, Limited};
use hyper::{
    Request, StatusCode,
    body::Bytes,
    client::conn::http1,
    header::{ACCEPT, HOST},
};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, de::DeserializeOwned};
use tokio::net::UnixStream;

use crate::api::types::{FlowQuery, NatQuery};

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("no daemon listens on {}: is `lbha run` running?", .0.display())]
    NoDaemon(PathBuf),
    #[error("permission denied on {}: only root and the socket's group may use it", .0.display())]
    Permission(PathBuf),
    #[error("{} is not a socket", .0.display())]
    NotSocket(PathBuf),
    #[error("cannot connect to {}", socket.display())]
    Connect {
        socket: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the daemon on {} did not answer within {} s", .0.display(), TIMEOUT.as_secs())]
    Timeout(PathBuf),
    #[error("what listens on {} does not speak HTTP as lbha does", socket.display())]
    Protocol {
        socket: PathBuf,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("the daemon answered {}: {message}", status.as_u16())]
    Status { status: StatusCode, message: String },
    #[error("cannot understand the daemon's answer to {path} (another version of lbha?)")]
    Decode {
        path: String,
        #[source]
        source: serde_json::Error,
    },
}

impl ClientError {
    /// Whether there was no answer at all, rather than one that disappoints.
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::NoDaemon(_)
            | Self::Permission(_)
            | Self::NotSocket(_)
            | Self::Connect { .. }
            | Self::Timeout(_)
            | Self::Protocol { .. } => true,
            Self::Status { .. } | Self::Decode { .. } => false,
        }
    }
}

/// Asks the daemon for `path` and reads its answer as a `T`.
pub async fn get<T: DeserializeOwned>(socket: &Path, path: &str) -> Result<T, ClientError> {
    decode(path, &get_bytes(socket, path).await?)
}

/// Reads the answer to `path`.
pub fn decode<T: DeserializeOwned>(path: &str, body: &[u8]) -> Result<T, ClientError> {
    serde_json::from_slice(body)
        .map_err(|source| ClientError::Decode { path: path.to_owned(), source })
}

/// Asks the daemon for `path`: the body of its answer as it came.
pub async fn get_bytes(socket: &Path, path: &str) -> Result<Bytes, ClientError> {
    tokio::time::timeout(TIMEOUT, exchange(socket, path))
        .await
        .map_err(|_| ClientError::Timeout(socket.to_owned()))?
}

/// The path that asks for the flows of `query`.
pub fn flows_path(query: &FlowQuery) -> String {
    let FlowQuery { limit, service, server, client, state } = query;
    path_with(
        "/v1/flows",
        [
            ("limit", limit.map(|v| v.to_string())),
            ("service", service.clone()),
            ("server", server.clone()),
            ("client", client.map(|v| v.to_string())),
            ("state", state.clone()),
        ],
    )
}

/// The path that asks for the bindings of `query`.
pub fn nat_path(query: &NatQuery) -> String {
    let NatQuery { limit, source, external, remote, protocol } = query;
    path_with(
        "/v1/nat",
        [
            ("limit", limit.map(|v| v.to_string())),
            ("source", source.map(|v| v.to_string())),
            ("external", external.map(|v| v.to_string())),
            ("remote", remote.map(|v| v.to_string())),
            ("protocol", protocol.clone()),
        ],
    )
}

fn path_with(path: &str, parameters: [(&str, Option<String>); 5]) -> String {
    let mut path = path.to_owned();
    let mut separator = '?';
    for (name, value) in parameters {
        if let Some(value) = value {
            path.push(separator);
            path.push_str(name);
            path.push('=');
            percent_encode(&value, &mut path);
            separator = '&';
        }
    }
    path
}

async fn exchange(socket: &Path, path: &str) -> Result<Bytes, ClientError> {
    let stream = UnixStream::connect(socket).await.map_err(|e| connect_error(socket, e))?;
    let garbage = |source: Box<dyn std::error::Error + Send + Sync>| ClientError::Protocol {
        socket: socket.to_owned(),
        source,
    };

    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|e| garbage(e.into()))?;
    let request = Request::get(path)
        // A Unix socket has no host name, and HTTP/1.1 wants one.
        .header(HOST, "lbha")
        .header(ACCEPT, "application/json")
        .body(Empty::<Bytes>::new())
        .map_err(|e| garbage(e.into()))?;
    let converse = async {
        let response = sender.send_request(request).await.map_err(|e| garbage(e.into()))?;
        let status = response.status();
        let body =
            Limited::new(response.into_body(), MAX_ANSWER).collect().await.map_err(garbage)?;
        Ok((status, body.to_bytes()))
    };
    // The connection moves the bytes and has nothing to report that the exchange does not report too.
    let drive = async {
        let _ = connection.await;
        std::future::pending().await
    };
    let (status, body) = tokio::select! {
        result = converse => result?,
        never = drive => never,
    };
    if status == StatusCode::OK {
        Ok(body)
    } else {
        Err(ClientError::Status { status, message: refusal(status, &body) })
    }
}

fn connect_error(socket: &Path, source: io::Error) -> ClientError {
    let socket = socket.to_owned();
    match source.kind() {
        // Linux refuses a connection to a plain file as it does one to a socket without a listener.
        io::ErrorKind::ConnectionRefused
            if fs::metadata(&socket).is_ok_and(|m| !m.file_type().is_socket()) =>
        {
            ClientError::NotSocket(socket)
        }
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ClientError::NoDaemon(socket),
        io::ErrorKind::PermissionDenied => ClientError::Permission(socket),
        _ => ClientError::Connect { socket, source },
    }
}

/// The server's own words, or what the status code means.
fn refusal(status: StatusCode, body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Refusal {
        error: String,
    }

    match serde_json::from_slice::<Refusal>(body) {
        Ok(Refusal { error }) => error,
        Err(_) => status.canonical_reason().unwrap_or("no reason given").to_owned(),
    }
}

/// Everything that RFC 3986 §2.3 does not call unreserved.
fn percent_encode(text: &str, out: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
}

/// For all of an exchange.
const TIMEOUT: Duration = Duration::from_secs(5);
/// A hundred thousand flows are some 35 MB.
const MAX_ANSWER: usize = 256 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_escape_their_values() {
        assert_eq!(flows_path(&FlowQuery::default()), "/v1/flows");
        let query = FlowQuery {
            limit: Some(5),
            service: Some("a b&c=ü".into()),
            client: Some([203, 0, 113, 7].into()),
            ..FlowQuery::default()
        };
        assert_eq!(
            flows_path(&query),
            "/v1/flows?limit=5&service=a%20b%26c%3D%C3%BC&client=203.0.113.7"
        );
        assert_eq!(nat_path(&NatQuery::default()), "/v1/nat");
        let query = NatQuery {
            source: Some("fd00:1::10".parse().unwrap()),
            protocol: Some("udp".into()),
            ..NatQuery::default()
        };
        assert_eq!(nat_path(&query), "/v1/nat?source=fd00%3A1%3A%3A10&protocol=udp");
    }

    #[test]
    fn errors_are_in_an_operators_words() {
        let socket = PathBuf::from("/run/lbha/admin.sock");
        for (kind, text) in [
            (
                io::ErrorKind::NotFound,
                "no daemon listens on /run/lbha/admin.sock: is `lbha run` running?",
            ),
            (
                io::ErrorKind::ConnectionRefused,
                "no daemon listens on /run/lbha/admin.sock: is `lbha run` running?",
            ),
            (
                io::ErrorKind::PermissionDenied,
                "permission denied on /run/lbha/admin.sock: only root and the socket's group may use it",
            ),
        ] {
            let error = connect_error(&socket, kind.into());
            assert_eq!(error.to_string(), text);
            assert!(error.is_unreachable());
        }
    }

    #[test]
    fn refusals_prefer_the_servers_words() {
        assert_eq!(refusal(StatusCode::BAD_REQUEST, br#"{"error":"no"}"#), "no");
        assert_eq!(refusal(StatusCode::BAD_REQUEST, b"<html>"), "Bad Request");
    }
}
