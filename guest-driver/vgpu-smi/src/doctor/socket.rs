//! The daemon's local socket, where there is no VM: is it there, may this user connect, does anybody listen?

use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use transport::{Device, OpenError};

use super::Finding;

fn start(path: &Path) -> String {
    format!("start the daemon: vhost-user-vgpu --local-socket {}", path.display())
}

/// The first step.
pub fn is_there(path: &Path) -> Finding {
    let shown = path.display();
    match std::fs::metadata(path) {
        Ok(data) if data.file_type().is_socket() => Finding::Ok(format!("a local socket: {shown}")),
        Ok(_) => Finding::failed(
            format!("{shown}, which VGPU_SOCKET names, is no socket"),
            "set VGPU_SOCKET to the path that vhost-user-vgpu --local-socket was given",
        ),
        Err(error) => Finding::failed(format!("{shown}, which VGPU_SOCKET names: {error}"), start(path)),
    }
}

/// The second: only whether this user may.
pub fn may_connect(path: &Path) -> Finding {
    match Device::open_local(path) {
        Err(OpenError::PermissionDenied { .. }) => Finding::failed(
            format!("this user may not connect to {}", path.display()),
            "run the program as the daemon's user, or put the daemon's socket into a folder of both",
        ),
        _ => Finding::Ok("this user may connect".to_owned()),
    }
}

/// The third.
pub fn listens(path: &Path) -> Finding {
    match Device::open_local(path) {
        Ok(_) => Finding::Ok("somebody listens".to_owned()),
        Err(error) => Finding::failed(
            format!("nobody listens at {} ({error}): the daemon that made it has ended", path.display()),
            start(path),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_nobody_listens_at() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vgpu.sock");
        assert!(matches!(is_there(&path), Finding::Failed { todo, .. } if todo.contains("--local-socket")));
        std::fs::write(&path, "").unwrap();
        assert!(matches!(is_there(&path), Finding::Failed { why, .. } if why.contains("is no socket")));
        std::fs::remove_file(&path).unwrap();
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(matches!(is_there(&path), Finding::Ok(_)));
        assert!(matches!(may_connect(&path), Finding::Ok(_)));
        assert!(matches!(listens(&path), Finding::Failed { why, .. } if why.contains("has ended")));
    }
}
