//! A small HTTP/1.1 client for tests: call it inside a namespace ([`crate::netns::Netns::run_in`]).

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::tcp;
pub use crate::tcp::Options;

/// A whole answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Response {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The first value of a header, its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// What the server saw as the other end (`X-Client`).
    pub fn client_seen(&self) -> Result<SocketAddr> {
        let value = self.header("x-client").context("no X-Client header")?;
        let parsed = || {
            let (address, port) = value.split_once(',')?;
            Some(SocketAddr::new(address.parse().ok()?, port.parse().ok()?))
        };
        parsed().with_context(|| format!("X-Client: {value}"))
    }
}

/// One GET on a connection of its own.
pub fn get(to: SocketAddr, path: &str) -> Result<Response> {
    get_with(to, path, &Options::default())
}

/// [`get`], with options.
pub fn get_with(to: SocketAddr, path: &str, options: &Options) -> Result<Response> {
    let mut connection = Connection::open(to, options)?;
    let response = connection.request("GET", path, &[("connection", "close")], &[])?;
    // The server closes first, so that TIME_WAIT is not here and the port can be taken again.
    let rest = connection.stream.read_to_end(&mut Vec::new()).context("wait for the close")?;
    ensure!(rest == 0, "{rest} bytes after the answer");
    Ok(response)
}

/// One request over a Unix socket, for the daemon's admin socket.
pub fn unix_request(socket: &Path, method: &str, path: &str, body: &[u8]) -> Result<Response> {
    let stream =
        UnixStream::connect(socket).with_context(|| format!("connect to {}", socket.display()))?;
    let timeout = Options::default().io_timeout;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    let mut stream = BufReader::new(stream);
    let headers = [("connection", "close"), ("content-type", "application/json")];
    exchange(&mut stream, "localhost", method, path, &headers, body)
}

/// A connection that takes one request after the other.
#[derive(Debug)]
pub struct Connection {
    stream: BufReader<TcpStream>,
    host: String,
}

impl Connection {
    pub fn open(to: SocketAddr, options: &Options) -> Result<Self> {
        let stream = tcp::connect(to, options)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream), host: to.to_string() })
    }

    pub fn get(&mut self, path: &str) -> Result<Response> {
        self.request("GET", path, &[], &[])
    }

    pub fn put(&mut self, path: &str, body: &[u8]) -> Result<Response> {
        self.request("PUT", path, &[], body)
    }

    pub fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Response> {
        exchange(&mut self.stream, &self.host, method, path, headers, body)
    }

    pub fn local(&self) -> Result<SocketAddr> {
        Ok(self.stream.get_ref().local_addr()?)
    }

    /// The socket below, for tests that look at TCP itself.
    pub fn stream(&self) -> &TcpStream {
        self.stream.get_ref()
    }
}

fn exchange<S: Read + Write>(
    stream: &mut BufReader<S>,
    host: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Result<Response> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    if !body.is_empty() || matches!(method, "PUT" | "POST" | "PATCH") {
        head += &format!("content-length: {}\r\n", body.len());
    }
    head += "\r\n";
    let socket = stream.get_mut();
    // One segment for a request that fits into one.
    if body.len() <= 4096 {
        socket.write_all(&[head.as_bytes(), body].concat()).context("send the request")?;
    } else {
        socket.write_all(head.as_bytes()).context("send the request")?;
        socket.write_all(body).context("send the body")?;
    }
    response(stream, method)
}

fn response(stream: &mut impl BufRead, method: &str) -> Result<Response> {
    let status_line = line(stream)?;
    let mut words = status_line.split(' ');
    ensure!(
        words.next().is_some_and(|version| version.starts_with("HTTP/1.")),
        "not an HTTP answer: {status_line:?}"
    );
    let status = words
        .next()
        .and_then(|code| code.parse().ok())
        .with_context(|| format!("no status in {status_line:?}"))?;
    let mut headers = Vec::new();
    loop {
        let line = line(stream)?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').with_context(|| format!("header {line:?}"))?;
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut response = Response { status, headers, body: Vec::new() };
    if method == "HEAD" || status == 204 || status == 304 {
        return Ok(response);
    }
    if response.header("transfer-encoding").is_some_and(|value| value == "chunked") {
        loop {
            let line = line(stream)?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).with_context(|| format!("chunk {line}"))?;
            let start = response.body.len();
            response.body.resize(start + size, 0);
            stream.read_exact(&mut response.body[start..]).context("read a chunk")?;
            if !self::line(stream)?.is_empty() {
                bail!("a chunk is longer than its size says");
            }
            if size == 0 {
                return Ok(response);
            }
        }
    }
    match response.header("content-length") {
        Some(length) => {
            let length: usize = length.parse().context("content-length")?;
            response.body.resize(length, 0);
            stream.read_exact(&mut response.body).context("read the body")?;
        }
        None => {
            stream.read_to_end(&mut response.body).context("read the body to its end")?;
        }
    }
    Ok(response)
}

/// A line without its end; the end of the stream is an error.
fn line(stream: &mut impl BufRead) -> Result<String> {
    let mut line = String::new();
    ensure!(
        stream.read_line(&mut line).context("read the answer")? > 0,
        "closed without an answer"
    );
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Response {
        response(&mut text.as_bytes(), "GET").unwrap()
    }

    #[test]
    fn a_body_ends_with_its_length() {
        let response =
            parse("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Client: fd00::4,5\r\n\r\nweb1\nmore");
        assert_eq!((response.status, response.text().as_str()), (200, "web1\n"));
        assert_eq!(response.client_seen().unwrap(), "[fd00::4]:5".parse().unwrap());
    }

    #[test]
    fn a_body_comes_in_chunks() {
        let text = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2;x\r\nde\r\n0\r\n\r\n";
        assert_eq!(parse(text).text(), "abcde");
    }

    #[test]
    fn a_body_without_a_length_ends_with_the_connection() {
        assert_eq!(parse("HTTP/1.0 503 No\r\n\r\nsorry").text(), "sorry");
    }

    #[test]
    fn a_connection_closed_without_an_answer_is_an_error() {
        assert!(response(&mut "".as_bytes(), "GET").is_err());
    }
}
