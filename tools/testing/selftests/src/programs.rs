//! Programs that nobody changed, as demonstrations and measurements start them.

use crate::Outcome;

/// What nginx serves: a file `name` is `WWW/name`.
pub const WWW: &str = "/tmp/www";

/// Makes nginx ready to serve files on machine B, port 80, with so many processes and `more` directives; the command that starts it.
pub fn nginx(workers: u32, more: &str) -> Outcome<&'static str> {
    for dir in [WWW, "/var/lib/nginx", "/var/log/nginx"] {
        std::fs::create_dir_all(dir)?;
    }
    let conf = format!(
        "
user root;
worker_processes {workers};
pid /tmp/nginx.pid;
error_log stderr;
daemon off;
events {{ worker_connections 64; }}
http {{
    access_log off;
    sendfile on;
    {more}
    server {{
        listen 10.9.0.2:80;
        root {WWW};
    }}
}}
"
    );
    std::fs::write("/tmp/nginx.conf", conf)?;
    Ok("nginx -c /tmp/nginx.conf")
}
