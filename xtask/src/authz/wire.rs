//! HTTP/1.1 as bytes: requests that no client library would send, and their answers.

use anyhow::{Context as _, Result, bail};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// One answer on loopback; authz itself answers within ten seconds.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);
/// An answer's body here is what an application saw of a request.
const MAX_BODY_BYTES: u64 = 256 * 1024;

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    /// The value of a header that is there once.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(n, _)| n == name);
        let (_, value) = found.next()?;
        found.next().is_none().then_some(value.as_str())
    }
}

/// The bytes of a request without a body.
pub fn request(method: &str, path: &str, headers: &[(&str, &str)]) -> Vec<u8> {
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: api.example\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    text.into_bytes()
}

/// One request on a connection of its own.
pub fn exchange(address: SocketAddr, request: &[u8]) -> Result<Answer> {
    let mut stream = connect(address)?;
    // A server may answer, and close, before it has read a header that is too long.
    let _ = stream.write_all(request);
    read(&mut BufReader::new(stream))
}

/// How many requests are answered 200 in this time, on so many kept connections.
pub fn load(
    address: SocketAddr,
    request: &[u8],
    connections: usize,
    time: Duration,
) -> Result<u64> {
    let until = Instant::now() + time;
    let one = || -> Result<u64> {
        let mut reader = BufReader::new(connect(address)?);
        let mut count = 0;
        while Instant::now() < until {
            reader.get_mut().write_all(request)?;
            let answer = read(&mut reader)?;
            if answer.status != 200 {
                bail!("under load: {answer:?}");
            }
            count += 1;
        }
        Ok(count)
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..connections).map(|_| scope.spawn(one)).collect();
        let counts = threads.into_iter().map(|t| match t.join() {
            Ok(count) => count,
            Err(_) => bail!("a connection's thread failed"),
        });
        counts.sum()
    })
}

fn connect(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, ANSWER_WITHIN)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn read(reader: &mut BufReader<TcpStream>) -> Result<Answer> {
    let line = read_line(reader)?;
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.with_context(|| format!("`{line}` is no status line"))?;
    let mut headers = Vec::new();
    loop {
        let line = read_line(reader)?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.push((name.to_lowercase(), value.trim().to_owned()));
    }
    let mut answer = Answer { status, headers, body: String::new() };
    let length = answer.header("content-length").and_then(|text| text.parse().ok());
    let length: u64 = length.unwrap_or(MAX_BODY_BYTES).min(MAX_BODY_BYTES);
    let mut body = Vec::new();
    if answer.header("transfer-encoding").is_some() {
        bail!("a chunked answer: {answer:?}");
    }
    reader.take(length).read_to_end(&mut body)?;
    answer.body = String::from_utf8_lossy(&body).into_owned();
    Ok(answer)
}

fn read_line(reader: &mut BufReader<TcpStream>) -> Result<String> {
    let mut line = String::new();
    let count = reader.take(MAX_BODY_BYTES).read_line(&mut line)?;
    if count == 0 {
        bail!("the connection ended without an answer");
    }
    Ok(line.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn an_answer_is_read_whole_and_no_further() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut bytes = vec![0; request("GET", "/x", &[("a", "b")]).len()];
            stream.read_exact(&mut bytes).unwrap();
            let answer = "HTTP/1.1 401 No\r\nA: 1\r\nB: 2\r\nb: 3\r\nContent-Length: 2\r\n\r\nokX";
            stream.write_all(answer.as_bytes()).unwrap();
            bytes
        });
        let answer = exchange(address, &request("GET", "/x", &[("a", "b")])).unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (401, "ok"));
        assert_eq!((answer.header("a"), answer.header("b")), (Some("1"), None));
        let sent = String::from_utf8(server.join().unwrap()).unwrap();
        assert_eq!(sent, "GET /x HTTP/1.1\r\nHost: api.example\r\na: b\r\n\r\n");
    }
}
