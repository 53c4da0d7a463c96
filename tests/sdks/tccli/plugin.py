"""The action for tccli, which does not have it: `run` puts this file into tccli's folder for plugins."""

from tccli.action_caller import GenericActionCaller

SERVICE, VERSION, ACTION = "gsplugin", "2019-11-18", "SwitchCloudPhoneMultipleStreamSessionSlaves"


class Caller(GenericActionCaller):
    def _filter_response(self, response, _version):
        return response


def member(name: str, kind: str, of: str) -> dict:
    return {"name": name, "member": of, "type": kind, "required": True, "document": name}


def register_service(specs: dict) -> None:
    action = {"name": ACTION, "document": ACTION, "input": ACTION + "Request", "output": ACTION + "Response"}
    request = [member("SessionId", "string", "string"), member("Type", "int64", "int64"), member("SlaveInstanceIds", "list", "string")]
    specs[SERVICE] = {
        VERSION: {
            "metadata": {"serviceShortName": "gs", "apiVersion": VERSION, "description": "cloud phones on one screen"},
            "version": "1.0",
            "actions": {ACTION: {**action, "action_caller": Caller("gs", ACTION)}},
            "objects": {
                action["input"]: {"members": request},
                action["output"]: {"members": [member("RequestId", "string", "string")]},
            },
        }
    }
