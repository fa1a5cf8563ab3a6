"""The part of Triton's `ModelConfig` that is written, as its published schema declares it, for protobuf's own parser.

Source: triton-inference-server/common, protobuf/model_config.proto: names, numbers, types.
"""

from typing import Any

from google.protobuf import text_format
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

_DATA_TYPES = "INVALID BOOL UINT8 UINT16 UINT32 UINT64 INT8 INT16 INT32 INT64 FP16 FP32 FP64 STRING BF16"
_MESSAGES = {
    "ModelConfig": "name:1:string backend:17:string max_batch_size:4:int32 input:5:*ModelInput output:6:*ModelOutput "
    "instance_group:7:*ModelInstanceGroup version_policy:3:ModelVersionPolicy dynamic_batching:11:ModelDynamicBatching "
    "parameters:14:*Parameter model_warmup:16:*ModelWarmup",
    "ModelInput": "name:1:string data_type:2:DataType dims:4:*int64",
    "ModelOutput": "name:1:string data_type:2:DataType dims:3:*int64",
    "ModelInstanceGroup": "name:1:string kind:4:Kind count:2:int32",
    "ModelVersionPolicy": "latest:1:Latest",
    "Latest": "num_versions:1:uint32",
    "ModelDynamicBatching": "preferred_batch_size:1:*int32 max_queue_delay_microseconds:2:uint64",
    "Parameter": "key:1:string value:2:ModelParameter",
    "ModelParameter": "string_value:1:string",
    "ModelWarmup": "name:1:string batch_size:2:uint32 inputs:3:*WarmupEntry count:4:uint32",
    "WarmupEntry": "key:1:string value:2:WarmupInput",
    "WarmupInput": "data_type:1:DataType dims:2:*int64 zero_data:3:bool random_data:4:bool",
}
_ENUMS = {
    "DataType": {f"TYPE_{name}": number for number, name in enumerate(_DATA_TYPES.split())},
    "Kind": {"KIND_AUTO": 0, "KIND_GPU": 1, "KIND_CPU": 2, "KIND_MODEL": 3},
}


def parse(text: str) -> Any:
    """Return the `ModelConfig` that a text is; an unknown field, type or number raises `text_format.ParseError`."""
    return text_format.Parse(text, _model_config()())


def _model_config() -> Any:
    file = FileDescriptorProto(name="model_config.proto", package="inference", syntax="proto3")
    for name, values in _ENUMS.items():
        kind = file.enum_type.add(name=name)
        for word, number in values.items():
            kind.value.add(name=word, number=number)
    for name, fields in _MESSAGES.items():
        _add(file.message_type.add(name=name), fields)
    pool = DescriptorPool()
    pool.Add(file)
    return GetMessageClass(pool.FindMessageTypeByName("inference.ModelConfig"))


def _add(message: DescriptorProto, fields: str) -> None:
    for words in fields.split():
        name, number, kind = words.split(":")
        field = message.field.add(name=name, number=int(number))
        field.label = FieldDescriptorProto.LABEL_REPEATED if kind[0] == "*" else FieldDescriptorProto.LABEL_OPTIONAL
        kind = kind.lstrip("*")
        if kind in _MESSAGES or kind in _ENUMS:
            field.type_name = f".inference.{kind}"
        else:
            field.type = getattr(FieldDescriptorProto, f"TYPE_{kind.upper()}")
