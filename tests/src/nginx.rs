//! A real nginx in a namespace, set up as in the guide.

use std::{
    fs::{self, File},
    net::SocketAddr,
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    netns::Netns,
    proc::Proc,
    scratch::ScratchDir,
    topology::{LB_PRIVATE, LB_PRIVATE6, Topology},
    wait::wait_for,
};

/// Who may ask.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Access {
    /// `allow …; deny all;`, as in the guide: every request has to come from a private address of the load balancer.
    LoadBalancer,
    /// For modes in which the servers see the clients' addresses.
    Open,
}

/// A running nginx. It answers
/// - `/` with its name and a newline, `X-Client` giving the address and port it saw, with a comma between;
/// - `/big` with [`BIG`] bytes of zeros;
/// - `PUT /upload/NAME` of up to 200 MiB with 201, the body to be found at [`Nginx::uploaded`].
#[derive(Debug)]
pub struct Nginx {
    name: String,
    process: Proc,
    dir: ScratchDir,
}

/// The size of `/big`.
pub const BIG: u64 = 100 * 1024 * 1024;

impl Nginx {
    /// Starts nginx and waits until it takes connections.
    pub fn start(
        namespace: &Netns,
        name: &str,
        listen: impl Into<SocketAddr>,
        access: Access,
    ) -> Result<Self> {
        Self::start_on(namespace, name, &[listen.into()], access)
    }

    /// [`Nginx::start`] on several addresses.
    pub fn start_on(
        namespace: &Netns,
        name: &str,
        listen: &[SocketAddr],
        access: Access,
    ) -> Result<Self> {
        let dir = ScratchDir::new(name)?;
        let path = dir.path();
        for sub in ["www/upload", "temp"] {
            fs::create_dir_all(path.join(sub))?;
        }
        fs::write(path.join("www/index.html"), format!("{name}\n"))?;
        File::create(path.join("www/big"))?.set_len(BIG)?;
        let config = path.join("nginx.conf");
        fs::write(&config, configuration(&path.display().to_string(), listen, access))?;

        let mut command = namespace.command("nginx")?;
        command.arg("-p").arg(path).arg("-c").arg(&config).arg("-e").arg(path.join("error.log"));
        let output = File::create(path.join("stderr.log"))?;
        command.stdout(output.try_clone()?).stderr(output);
        let nginx = Self { name: name.into(), process: namespace.spawn(command)?, dir };
        let taken = wait_for(LIMIT, &format!("for {name} to listen on {listen:?}"), || {
            if !nginx.process.is_running() {
                return Some(false);
            }
            listen.iter().all(|on| namespace.listens(*on)).then_some(true)
        });
        match taken {
            Ok(true) => Ok(nginx),
            Ok(false) => bail!("{name} ended: {}", nginx.errors()),
            Err(error) => Err(error.context(nginx.errors())),
        }
    }

    /// One on port 80 of every web server of the topology, called web1, web2, ….
    pub fn start_all(topology: &Topology, access: Access) -> Result<Vec<Self>> {
        let servers = topology.web.iter().enumerate().map(|(index, namespace)| {
            let listen = topology.web_sockets(index, 80);
            Self::start_on(namespace, &format!("web{}", index + 1), &listen, access)
        });
        servers.collect()
    }

    /// On port 80 of the host on the internet.
    pub fn start_on_the_internet(topology: &Topology) -> Result<Self> {
        let listen = topology.internet_sockets(80);
        Self::start_on(topology.internet(), "internet", &listen, Access::Open)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn process(&self) -> &Proc {
        &self.process
    }

    /// Ends it, as when a web server's service stops.
    pub fn stop(&self) -> Result<()> {
        let status = self.process.stop(LIMIT)?;
        status.success().then_some(()).with_context(|| format!("{}: {status}", self.name))
    }

    /// Where the body of `PUT /upload/NAME` is.
    pub fn uploaded(&self, name: &str) -> PathBuf {
        self.dir.path().join("www/upload").join(name)
    }

    fn errors(&self) -> String {
        let read = |file| fs::read_to_string(self.dir.path().join(file)).unwrap_or_default();
        format!("{} says: {}{}", self.name, read("error.log"), read("stderr.log"))
    }
}

impl Access {
    /// The guide's: only the load balancer.
    pub const GUIDE: Self = Self::LoadBalancer;
}

fn configuration(dir: &str, listen: &[SocketAddr], access: Access) -> String {
    let lines = listen.iter().map(|on| format!("listen {on} backlog=4096;"));
    let listen = lines.collect::<Vec<_>>().join(" ");
    let access = match access {
        Access::LoadBalancer => {
            format!("allow {LB_PRIVATE}; allow {LB_PRIVATE6}; deny all;")
        }
        Access::Open => String::new(),
    };
    // Files and not `return`: that one answers before the access rules are looked at.
    format!(
        "daemon off;
user root;
worker_processes 1;
worker_rlimit_nofile 16384;
pid {dir}/nginx.pid;
error_log {dir}/error.log warn;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    default_type text/plain;
    sendfile on;
    tcp_nopush on;
    keepalive_timeout 75s;
    keepalive_requests 100000000;
    client_body_temp_path {dir}/temp/body;
    proxy_temp_path {dir}/temp/proxy;
    fastcgi_temp_path {dir}/temp/fastcgi;
    uwsgi_temp_path {dir}/temp/uwsgi;
    scgi_temp_path {dir}/temp/scgi;
    open_file_cache max=100;
    server {{
        {listen}
        {access}
        root {dir}/www;
        add_header X-Client $remote_addr,$remote_port;
        location /upload/ {{
            dav_methods PUT;
            client_max_body_size 200m;
        }}
    }}
}}
"
    )
}

const LIMIT: Duration = Duration::from_secs(10);
