"""`orlop login`: check credentials for a registry, and keep them."""

from __future__ import annotations

import argparse
import sys

from orlop.cli.terminal import ask, ask_secret
from orlop.cli.transfers import advising, hosts_folders
from orlop.credentials import Credential, Keyring, from_pair
from orlop.errors import InvalidArgument, Unauthenticated

NEEDS_DAEMON = False
_SECRET_MAX = 64 << 10


def configure(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-u", "--username", default="", help="asked for when it is not given")
    add("-p", "--password", help="others can see it in the process list: --password-stdin is safer")
    add("--password-stdin", action="store_true", help="read the password from standard input")
    add("--plain-http", action="store_true", help="talk http, as to a registry on localhost")
    add("--hosts-dir", default="", metavar="FOLDER", help="of hosts.toml files with certificates")
    add("registry", nargs="?", default="docker.io", help="host[:port] (%(default)s)")


def run(args: argparse.Namespace) -> int:
    from orlop.client.login import check_credentials

    host = _host(args.registry)
    credential = _credential(args)
    try:
        with advising(host):
            asked = check_credentials(
                host, credential, plain_http=args.plain_http, folders=hosts_folders(args)
            )
    except Unauthenticated as error:
        raise Unauthenticated(f'registry "{host}" does not take {_whose(credential)}') from error
    kept = Keyring.of_user().store(host, credential)
    if not asked:
        print(f"orlop: {host} asks for no credentials, so they are not checked", file=sys.stderr)
    print(f"logged in to {host}; kept in {kept}")
    return 0


def _whose(credential: Credential) -> str:
    if credential.identity_token:
        return "this identity token"
    return f'the credentials of "{credential.username}"'


def _host(registry: str) -> str:
    host = (registry.partition("://")[2] or registry).rstrip("/")
    if not host or "/" in host:
        raise InvalidArgument(f'registry "{registry}" is not HOST[:PORT]')
    return host


def _credential(args: argparse.Namespace) -> Credential:
    if args.password_stdin and args.password is not None:
        raise InvalidArgument("--password and --password-stdin exclude each other")
    if args.password_stdin and not args.username:
        raise InvalidArgument("--password-stdin needs --username")
    name = args.username or ask("user name: ")
    if not name:
        raise InvalidArgument("no user name given")
    if args.password_stdin:
        secret = sys.stdin.read(_SECRET_MAX).rstrip("\r\n")
    elif args.password is not None:
        secret = args.password
    else:
        secret = ask_secret("password: ")
    if not secret:
        raise InvalidArgument("no password given")
    return from_pair(name, secret)
