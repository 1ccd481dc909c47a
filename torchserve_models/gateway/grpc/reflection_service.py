"""Server reflection, with which clients such as grpcurl find out services and messages."""

from collections.abc import Iterable
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from torchserve_models.client.call_types import import_stubs
from torchserve_models.gateway.grpc import inference_service

VERSIONS = ("grpc.reflection.v1.ServerReflection", reflection.SERVICE_NAME)
"""Names of the service. The messages of both versions are equal; clients try the first one first."""


def reflection_handlers(services: Iterable[str]) -> list[grpc.GenericRpcHandler]:
    """Return the handlers of both versions of the reflection service.

    Args:
        services: Names of the services to list, whose files `descriptors` contains.
    """
    names = [*services, *VERSIONS]
    servicer = reflection.aio.ReflectionServicer(names, descriptors())  # type: ignore[attr-defined]  # not in grpc-stubs
    method = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    return [
        grpc.method_handlers_generic_handler(version, {"ServerReflectionInfo": method})
        for version in VERSIONS
    ]


def descriptors() -> descriptor_pool.DescriptorPool:
    """Return the descriptors of all services.

    The Open Inference service and reflection have two names with equal messages each.
    """
    pool = descriptor_pool.DescriptorPool()
    open_inference = import_stubs("open_inference_grpc").DESCRIPTOR
    added: set[str] = set()
    for file in (
        import_stubs("inference").DESCRIPTOR,
        open_inference,
        health_pb2.DESCRIPTOR,
        reflection_pb2.DESCRIPTOR,
    ):
        _add(pool, file, added)
    pool.Add(_renamed(open_inference, inference_service.SERVICE, "grpc_service.proto"))
    pool.Add(_renamed(reflection_pb2.DESCRIPTOR, VERSIONS[0], "grpc/reflection/v1/reflection.proto"))
    return pool


def _add(pool: descriptor_pool.DescriptorPool, file: Any, added: set[str]) -> None:
    """Add a file after the files that it imports."""
    if file.name in added:
        return
    added.add(file.name)
    for dependency in file.dependencies:
        _add(pool, dependency, added)
    pool.AddSerializedFile(file.serialized_pb)


def _renamed(file: Any, service: str, name: str) -> descriptor_pb2.FileDescriptorProto:
    """Return a file without imports under another name, and with the package of `service`."""
    result = descriptor_pb2.FileDescriptorProto()
    file.CopyToProto(result)
    result.name, result.package = name, service.rpartition(".")[0]
    old, new = f".{file.package}.", f".{result.package}."

    def rename_fields(messages: Any) -> None:
        for message in messages:
            for field in message.field:
                if field.type_name:
                    field.type_name = field.type_name.replace(old, new)
            rename_fields(message.nested_type)

    rename_fields(result.message_type)
    for method in result.service[0].method:
        method.input_type = method.input_type.replace(old, new)
        method.output_type = method.output_type.replace(old, new)
    return result
