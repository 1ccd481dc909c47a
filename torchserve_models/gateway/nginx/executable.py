"""Find nginx, check its configuration, and build the command that runs it."""

import shutil
import subprocess
from pathlib import Path

from torchserve_models.gateway.nginx.config import NginxConfig, NginxError
from torchserve_models.gateway.nginx.template import render_config


def find_nginx() -> str:
    """Return the path of nginx. Raises NginxError if it is not installed."""
    path = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if path is None:
        raise NginxError("nginx is not installed (on Debian: apt-get install nginx-light)")
    return path


def start_command(config: NginxConfig, work: Path) -> list[str]:
    """Write nginx.conf into `work` and return the command that runs nginx in the foreground.

    Raises:
        NginxError: nginx is not installed, or it rejects the configuration.
    """
    path = work / "nginx.conf"
    path.write_text(render_config(config, work), encoding="utf-8")
    start = [find_nginx(), "-p", str(work), "-c", str(path), "-e", "stderr"]
    checked = subprocess.run([*start, "-t", "-q"], capture_output=True, text=True, timeout=60)
    if checked.returncode:
        raise NginxError(f"nginx rejects the generated configuration: {checked.stderr.strip()}")
    return [*start, "-g", "daemon off;"]
