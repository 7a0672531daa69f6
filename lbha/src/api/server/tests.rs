//! The server over a real socket: its life cycle, every path, and clients that misbehave.

use std::{future::pending, sync::atomic::Ordering, time::Instant};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::oneshot,
};

use super::*;
use crate::api::{
    client::{self, ClientError},
    router::PATHS,
    testing::{self, Fake, Scratch},
    types,
};

fn run<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Binds and serves a [`Fake`] until the runtime ends.
fn serve(scratch: &Scratch, limits: Limits) -> Arc<Fake> {
    let view = Arc::new(Fake::new());
    let mut server = Server::bind(&scratch.socket()).unwrap();
    server.limits = limits;
    tokio::spawn(server.serve(Arc::clone(&view) as _, pending::<()>()));
    view
}

/// Status line, head and body of an answer to a raw request.
async fn raw(socket: &Path, request: &str) -> (String, String) {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_ascii_lowercase(), body.to_owned())
}

async fn raw_get(socket: &Path, method: &str, path: &str) -> (String, Value) {
    let request = format!("{method} {path} HTTP/1.1\r\nHost: lbha\r\nConnection: close\r\n\r\n");
    let (head, body) = raw(socket, &request).await;
    (head, serde_json::from_str(&body).unwrap())
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn the_socket_is_for_root_and_its_group_and_its_directory_is_made() {
    let scratch = Scratch::new();
    let socket = scratch.path().join("run/lbha/admin.sock");
    let server = Server::bind(&socket).unwrap();
    assert_eq!(server.path(), socket);
    assert_eq!(mode(&socket), 0o660);
    assert_eq!(mode(socket.parent().unwrap()), 0o755);
    drop(server);
    assert!(!socket.exists());
}

#[test]
fn a_stale_socket_is_replaced() {
    let scratch = Scratch::new();
    // std's listener leaves its file behind, as a killed daemon does.
    drop(StdUnixListener::bind(scratch.socket()).unwrap());
    assert!(scratch.socket().exists());
    Server::bind(&scratch.socket()).unwrap();
}

#[test]
fn a_live_socket_is_an_error_that_says_so() {
    let scratch = Scratch::new();
    let first = Server::bind(&scratch.socket()).unwrap();
    let error = Server::bind(&scratch.socket()).unwrap_err();
    assert!(matches!(error, ServerError::Live(_)));
    assert!(error.to_string().starts_with("another daemon listens on "), "{error}");
    assert!(scratch.socket().exists());
    drop(first);
}

#[test]
fn a_live_socket_with_a_full_backlog_is_alive() {
    let scratch = Scratch::new();
    let path = scratch.socket();
    let listener = stream_socket().unwrap();
    let address = UnixAddr::new(&path).unwrap();
    bind(listener.as_raw_fd(), &address).unwrap();
    listen(&listener, Backlog::new(0).unwrap()).unwrap();
    let mut clients = Vec::new();
    loop {
        let client = stream_socket().unwrap();
        let result = connect(client.as_raw_fd(), &address);
        clients.push(client);
        match result {
            Ok(()) => assert!(clients.len() < 64),
            Err(Errno::EAGAIN) => break,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(matches!(Server::bind(&path), Err(ServerError::Live(_))));
}

#[test]
fn a_file_that_is_no_socket_is_left_alone() {
    let scratch = Scratch::new();
    fs::write(scratch.socket(), "precious").unwrap();
    let error = Server::bind(&scratch.socket()).unwrap_err();
    assert!(matches!(error, ServerError::NotSocket(_)));
    assert_eq!(fs::read_to_string(scratch.socket()).unwrap(), "precious");

    // Nor is a link followed to somebody else's socket.
    let link = scratch.path().join("link");
    std::os::unix::fs::symlink("admin.sock", &link).unwrap();
    assert!(matches!(Server::bind(&link), Err(ServerError::NotSocket(_))));
}

#[test]
fn a_path_too_long_for_a_socket_says_so() {
    let path = Path::new("/run").join("l".repeat(MAX_PATH));
    let error = Server::bind(&path).unwrap_err().to_string();
    assert!(error.ends_with("is too long for a socket: 112 bytes, and 107 is the most"), "{error}");

    let scratch = Scratch::new();
    let room = MAX_PATH - scratch.path().as_os_str().len() - 1;
    Server::bind(&scratch.path().join("l".repeat(room))).unwrap();
}

#[test]
fn a_directory_that_cannot_be_made_says_so() {
    let scratch = Scratch::new();
    fs::write(scratch.path().join("file"), "").unwrap();
    let error = Server::bind(&scratch.path().join("file/sub/admin.sock")).unwrap_err();
    assert!(matches!(error, ServerError::Directory { .. }), "{error}");
}

#[test]
fn shutdown_removes_the_socket_and_ends_idle_connections() {
    run(async {
        let scratch = Scratch::new();
        let server = Server::bind(&scratch.socket()).unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let served = tokio::spawn(server.serve(Arc::new(Fake::new()), stopped));
        let mut idle = UnixStream::connect(scratch.socket()).await.unwrap();
        client::get_bytes(&scratch.socket(), "/healthz").await.unwrap();

        let begin = Instant::now();
        stop.send(()).unwrap();
        served.await.unwrap().unwrap();
        assert!(begin.elapsed() < Duration::from_secs(1));
        assert!(!scratch.socket().exists());
        assert_eq!(idle.read(&mut [0; 16]).await.unwrap(), 0);
    });
}

#[test]
fn a_socket_that_replaced_ours_is_not_removed() {
    let scratch = Scratch::new();
    let first = Server::bind(&scratch.socket()).unwrap();
    fs::remove_file(scratch.socket()).unwrap();
    let second = Server::bind(&scratch.socket()).unwrap();
    drop(first);
    assert!(scratch.socket().exists());
    drop(second);
    assert!(!scratch.socket().exists());
}

#[test]
fn every_list_is_served_as_the_view_gives_it() {
    run(async {
        let scratch = Scratch::new();
        let socket = scratch.socket();
        serve(&scratch, Limits::default());
        let status: types::Status = client::get(&socket, "/v1/status").await.unwrap();
        assert_eq!(status, testing::status(0));
        let services: Vec<types::Service> = client::get(&socket, "/v1/services").await.unwrap();
        assert_eq!(services, testing::services(1));
        let servers: Vec<types::Server> = client::get(&socket, "/v1/servers").await.unwrap();
        assert_eq!(servers, testing::servers(2));
        let drops: Vec<types::InterfaceCounters> = client::get(&socket, "/v1/drops").await.unwrap();
        assert_eq!(drops, testing::drops(3));
        let flows: types::Flows = client::get(&socket, "/v1/flows").await.unwrap();
        assert_eq!(flows, testing::flows());
        let nat: types::Nat = client::get(&socket, "/v1/nat").await.unwrap();
        assert_eq!(nat, testing::nat());
    });
}

#[test]
fn flows_are_filtered_and_limited() {
    run(async {
        let scratch = Scratch::new();
        let socket = scratch.socket();
        serve(&scratch, Limits::default());
        let limited: types::Flows = client::get(&socket, "/v1/flows?limit=1").await.unwrap();
        assert_eq!((limited.flows.len(), limited.truncated), (1, true));
        let of_www: types::Flows = client::get(&socket, "/v1/flows?service=www").await.unwrap();
        assert_eq!((of_www.flows.len(), of_www.truncated), (1, false));

        let (head, body) = raw_get(&socket, "GET", "/v1/flows?client=me").await;
        assert!(head.starts_with("http/1.1 400"), "{head}");
        assert_eq!(body, json!({ "error": "bad query: client: invalid IP address syntax" }));
        let error = client::get_bytes(&socket, "/v1/flows?limit=x").await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "the daemon answered 400: bad query: limit: invalid digit found in string"
        );
    });
}

#[test]
fn bindings_are_filtered_and_limited() {
    run(async {
        let scratch = Scratch::new();
        let socket = scratch.socket();
        serve(&scratch, Limits::default());
        let ask = async |query: &str| -> types::Nat {
            client::get(&socket, &format!("/v1/nat?{query}")).await.unwrap()
        };
        let limited = ask("limit=1").await;
        assert_eq!((limited.bindings.len(), limited.total, limited.truncated), (1, 3, true));
        for (query, bindings) in [
            ("source=192.168.1.11", &testing::nat().bindings[1..2]),
            ("external=147.75.78.116", &testing::nat().bindings[..2]),
            ("remote=2001:db8:ffff::53", &testing::nat().bindings[2..]),
            ("protocol=tcp&source=192.168.1.10&limit=7", &testing::nat().bindings[..1]),
            ("source=192.0.2.1", &[]),
        ] {
            let nat = ask(query).await;
            assert_eq!(nat.bindings, bindings, "{query}");
            assert_eq!((nat.total, nat.truncated), (bindings.len() as u64, false), "{query}");
        }

        for (query, message) in [
            ("source=me", "bad query: source: invalid IP address syntax"),
            ("limit=-1", "bad query: limit: invalid digit found in string"),
            ("protocol=gre", "unknown protocol `gre`; known are tcp, udp, icmp"),
            (
                "state=icmp",
                "unknown parameter `state`; known are limit, source, external, remote, protocol",
            ),
        ] {
            let (head, body) = raw_get(&socket, "GET", &format!("/v1/nat?{query}")).await;
            assert!(head.starts_with("http/1.1 400"), "{head}");
            assert_eq!(body, json!({ "error": message }));
        }
    });
}

#[test]
fn readiness_is_the_views_and_health_is_the_processes() {
    run(async {
        let scratch = Scratch::new();
        let view = serve(&scratch, Limits::default());
        let (head, body) = raw_get(&scratch.socket(), "GET", "/readyz").await;
        assert!(head.starts_with("http/1.1 200"), "{head}");
        assert_eq!(body, json!({ "ready": true }));

        view.ready.store(false, Ordering::Relaxed);
        let (head, body) = raw_get(&scratch.socket(), "GET", "/readyz").await;
        assert!(head.starts_with("http/1.1 503"), "{head}");
        assert_eq!(body, json!({ "ready": false }));
        let (head, body) = raw_get(&scratch.socket(), "GET", "/healthz").await;
        assert!(head.starts_with("http/1.1 200"), "{head}");
        assert!(head.contains("content-type: application/json"), "{head}");
        assert_eq!(body, json!({ "status": "ok" }));
    });
}

#[test]
fn unknown_paths_are_told_the_known_ones_and_wrong_methods_the_right_one() {
    run(async {
        let scratch = Scratch::new();
        serve(&scratch, Limits::default());
        let (head, body) = raw_get(&scratch.socket(), "GET", "/v1/flow").await;
        assert!(head.starts_with("http/1.1 404"), "{head}");
        assert_eq!(body, json!({ "error": "no such path: /v1/flow", "paths": PATHS }));
        for path in PATHS {
            let (head, body) = raw_get(&scratch.socket(), "POST", path).await;
            assert!(head.starts_with("http/1.1 405"), "{head}");
            assert!(head.contains("allow: get, head"), "{head}");
            assert_eq!(body, json!({ "error": format!("{path} takes GET, not POST") }));
            let (head, _) = raw_get(&scratch.socket(), "GET", path).await;
            assert!(head.starts_with("http/1.1 200"), "{head}");
        }
    });
}

#[test]
fn a_view_that_panics_is_an_error_to_the_client_and_not_the_end_of_the_server() {
    run(async {
        let scratch = Scratch::new();
        serve(&scratch, Limits::default());
        for _ in 0..3 {
            let error =
                client::get_bytes(&scratch.socket(), "/v1/flows?service=panic").await.unwrap_err();
            assert!(error.to_string().starts_with("the daemon answered 500: "), "{error}");
        }
        // The permits of the failed dumps are free again.
        client::get_bytes(&scratch.socket(), "/v1/flows").await.unwrap();
    });
}

#[test]
fn slow_clients_are_cut_off_and_do_not_keep_others_out() {
    run(async {
        let scratch = Scratch::new();
        let limits =
            Limits { connections: 4, header: Duration::from_millis(200), ..Limits::default() };
        serve(&scratch, limits);
        let mut slow = Vec::new();
        for begin in ["", "GET /healthz HTTP/1.1\r\nHost: l", "G", ""] {
            let mut stream = UnixStream::connect(scratch.socket()).await.unwrap();
            stream.write_all(begin.as_bytes()).await.unwrap();
            slow.push(stream);
        }
        // Waits in the backlog until one of the slow ones has had its time.
        client::get_bytes(&scratch.socket(), "/healthz").await.unwrap();
        for mut stream in slow {
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
        }
    });
}

#[test]
fn idle_and_endless_connections_are_ended() {
    run(async {
        let scratch = Scratch::new();
        let limits = Limits { header: Duration::from_millis(100), ..Limits::default() };
        serve(&scratch, limits);
        // Kept alive after an answer, then silent.
        let (head, _) = raw(&scratch.socket(), "GET /healthz HTTP/1.1\r\nHost: lbha\r\n\r\n").await;
        assert!(head.starts_with("http/1.1 200"), "{head}");
    });
    run(async {
        let scratch = Scratch::new();
        let short = Duration::from_millis(200);
        serve(&scratch, Limits { lifetime: short, grace: short, ..Limits::default() });
        let mut busy = UnixStream::connect(scratch.socket()).await.unwrap();
        let begin = Instant::now();
        let mut buffer = [0; 4096];
        loop {
            let sent = busy.write_all(b"GET /healthz HTTP/1.1\r\nHost: lbha\r\n\r\n").await;
            if sent.is_err() || busy.read(&mut buffer).await.is_ok_and(|n| n == 0) {
                break;
            }
            assert!(begin.elapsed() < Duration::from_secs(10));
        }
    });
}

#[test]
fn oversized_heads_are_refused() {
    run(async {
        let scratch = Scratch::new();
        serve(&scratch, Limits::default());
        let request =
            format!("GET /healthz?{} HTTP/1.1\r\nHost: lbha\r\n\r\n", "x".repeat(1 << 20));
        let mut stream = UnixStream::connect(scratch.socket()).await.unwrap();
        // The server may close before it has read everything.
        let _ = stream.write_all(request.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(!answer.starts_with(b"HTTP/1.1 200"));
        client::get_bytes(&scratch.socket(), "/healthz").await.unwrap();
    });
}

#[test]
fn the_client_names_what_is_wrong_with_the_socket() {
    run(async {
        let scratch = Scratch::new();
        let socket = scratch.socket();
        let ask = async || client::get_bytes(&socket, "/healthz").await.unwrap_err();
        assert!(matches!(ask().await, ClientError::NoDaemon(_)));
        fs::write(&socket, "").unwrap();
        assert!(matches!(ask().await, ClientError::NotSocket(_)));
        fs::remove_file(&socket).unwrap();
        drop(StdUnixListener::bind(&socket).unwrap());
        assert!(matches!(ask().await, ClientError::NoDaemon(_)));

        fs::remove_file(&socket).unwrap();
        let garbage = UnixListener::bind(&socket).unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = garbage.accept().await.unwrap();
            let _ = stream.write_all(b"* OK IMAP4rev1\r\n").await;
            let _ = stream.read(&mut [0; 1024]).await;
        });
        assert!(matches!(ask().await, ClientError::Protocol { .. }));
    });
}
