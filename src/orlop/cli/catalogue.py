"""What commands there are: the module of each, what it does in a few words, and their order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Command(NamedTuple):
    """A command: a module of `orlop.cli.commands`, and what it does."""

    module: str
    summary: str


_CONTAINERS = {
    "run": Command("run", "create and run a container"),
    "create": Command("create", "make a container, to be started later"),
    "ps": Command("ps", "list containers"),
    "exec": Command("exec", "run a command in a running container"),
    "attach": Command("attach", "share the input and output of a running container"),
    "logs": Command("logs", "show what a container printed"),
    "stats": Command("stats", "show what running containers use"),
    "top": Command("top", "show what all containers use, live, or the processes of one"),
    "start": Command("start", "run stopped containers once more"),
    "stop": Command("stop", "stop containers, first asking, then killing"),
    "restart": Command("restart", "stop containers and start them again"),
    "kill": Command("kill", "send a signal to containers"),
    "update": Command("update", "change the limits of containers"),
    "rename": Command("rename", "give a container another name"),
    "port": Command("port", "show where the ports of a container are published"),
    "pause": Command("pause", "freeze all processes of containers"),
    "unpause": Command("unpause", "let paused containers go on"),
    "wait": Command("wait", "wait for containers, and print their exit statuses"),
    "cp": Command("cp", "copy files between a container and this host"),
    "diff": Command("diff", "show what a container has changed of its image's files"),
    "commit": Command("commit", "make an image of what a container has changed"),
    "restore": Command("restore", "let a container go on where a checkpoint was made"),
    "rm": Command("rm", "remove containers"),
}
_IMAGES = {
    "pull": Command("pull", "pull an image from a registry"),
    "push": Command("push", "push an image to a registry"),
    "images": Command("images", "list images"),
    "tag": Command("tag", "give an image another name"),
    "rmi": Command("rmi", "remove images"),
    "save": Command("save", "write images to an archive"),
    "load": Command("load", "take images from an archive"),
    "mount": Command("mount", "show an image's files in a folder, or what is shown where"),
    "umount": Command("umount", "take images' files out of folders again"),
}
_REGISTRIES = {
    "login": Command("login", "check and keep credentials for a registry"),
    "logout": Command("logout", "forget the credentials for a registry"),
}
_OTHERS = {
    "inspect": Command("inspect", "show all about containers or images, as JSON"),
    "events": Command("events", "follow what happens in the daemon"),
    "version": Command("version", "show the versions of client and daemon"),
}

COMMANDS: Mapping[str, Command] = {**_CONTAINERS, **_IMAGES, **_REGISTRIES, **_OTHERS}

GROUPS: Mapping[str, Mapping[str, Command]] = {
    "image": {
        "ls": _IMAGES["images"],
        "inspect": Command("image_inspect", "show what images consist of, as JSON"),
        "history": Command("image_history", "show how an image was made"),
        "verify": Command("image_verify", "check who signed an image in its registry"),
        "rm": _IMAGES["rmi"],
        "prune": Command("image_prune", "remove the names of unused images"),
    },
    "checkpoint": {
        "create": Command("checkpoint_create", "keep the state of a container's processes"),
        "ls": Command("checkpoint_ls", "list the checkpoints of a container"),
        "rm": Command("checkpoint_rm", "remove a checkpoint"),
    },
    "network": {
        "create": Command("network_create", "make a network for containers"),
        "ls": Command("network_ls", "list networks"),
        "inspect": Command("network_inspect", "show all about networks, as JSON"),
        "connect": Command("network_connect", "put a container into one more network"),
        "disconnect": Command("network_disconnect", "take a container out of a network"),
        "rm": Command("network_rm", "remove networks that no container is in"),
        "prune": Command("network_prune", "remove all networks that no container is in"),
    },
    "netns": {
        "create": Command("netns_create", "make network namespaces that live without a process"),
        "ls": Command("netns_ls", "list them"),
        "inspect": Command("netns_inspect", "show all that is in them, as JSON"),
        "exec": Command("netns_exec", "run a program of this host in one"),
        "rm": Command("netns_rm", "give them up"),
    },
    "system": {
        "df": Command("system_df", "show what images and containers take of the disk"),
        "prune": Command("system_prune", "remove what is not in use"),
    },
    "store": {
        "check": Command("store_check", "compare blobs, records and files, and repair them"),
        "df": Command("store_df", "show what all of it takes of the disk, by kind and layer"),
        "backup": Command("store_backup", "save images and records, while all goes on"),
        "adopt": Command("store_adopt", "take over what a stopped containerd has stored"),
    },
    "manifest": {
        "inspect": Command("manifest_inspect", "show the manifest or index of an image"),
    },
}

_GROUPS_IN_SHORT = {
    "image": "work with images",
    "checkpoint": "work with the state of processes",
    "network": "work with networks of containers",
    "netns": "work with network namespaces",
    "system": "work with all of it",
    "store": "care for what is stored",
    "manifest": "look at manifests",
}


def overview() -> str:
    """All commands, for people."""
    sections = {
        "containers": listing(_CONTAINERS),
        "images": listing(_IMAGES) + "\n" + _groups(),
        "registries": listing(_REGISTRIES),
        "others": listing(_OTHERS),
    }
    return "\n\n".join(f"{title}:\n{lines}" for title, lines in sections.items())


def listing(commands: Mapping[str, Command]) -> str:
    return "\n".join(f"  {name:<11}{command.summary}" for name, command in commands.items())


def _groups() -> str:
    return "\n".join(
        f"  {name:<11}{_GROUPS_IN_SHORT[name]}: {', '.join(commands)}"
        for name, commands in GROUPS.items()
    )
