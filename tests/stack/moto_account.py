"""An AWS account in moto, and the stack in the account.

moto's CloudFormation supports half of the resource types. A resource of another type is created with the API of its AWS
service, if moto has that API. The parameters of these calls are the template's properties. botocore checks their names
and types, and moto checks their values as far as it supports the service.
"""

import json
from collections.abc import Callable
from typing import Any

import boto3
from moto.cloudformation.parsing import get_model_map

from tests.ops.cloudformation import evaluated, load, references

TEMPLATE = load()
RESOURCES: dict[str, dict[str, Any]] = TEMPLATE["Resources"]
REGION = "us-west-1"
BY_API: dict[str, tuple[str, str]] = {
    "AWS::ApplicationAutoScaling::ScalableTarget": ("application-autoscaling", "register_scalable_target"),
    "AWS::ApplicationAutoScaling::ScalingPolicy": ("application-autoscaling", "put_scaling_policy"),
    "AWS::CloudWatch::Alarm": ("cloudwatch", "put_metric_alarm"),
    "AWS::EC2::SecurityGroupEgress": ("ec2", "authorize_security_group_egress"),
    "AWS::ElastiCache::ReplicationGroup": ("elasticache", "create_replication_group"),
    "AWS::ElastiCache::SubnetGroup": ("elasticache", "create_cache_subnet_group"),
    "AWS::ElastiCache::User": ("elasticache", "create_user"),
    "AWS::Logs::MetricFilter": ("logs", "put_metric_filter"),
    "AWS::SecretsManager::Secret": ("secretsmanager", "create_secret"),
    "AWS::SNS::Subscription": ("sns", "subscribe"),
}
"""The API call that creates a resource, for each type that moto supports only in the service's API."""


def known_to_cloudformation(kind: str) -> bool:
    """Return true if moto creates this type from a template."""
    return kind in get_model_map()


def types(wanted: Callable[[str], bool]) -> set[str]:
    """Return the types of the template for which `wanted` is true."""
    return {entry["Type"] for entry in RESOURCES.values() if wanted(entry["Type"])}


def client(service: str) -> Any:
    return boto3.client(service, region_name=REGION, aws_access_key_id="none", aws_secret_access_key="none")


class Account:
    """The stack with a value for every parameter. `values` has the parameters and the name of each created resource."""

    def __init__(self, **parameters: str) -> None:
        ec2 = client("ec2")
        vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        subnets = [
            ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.0.{number}.0/24", AvailabilityZone=f"{REGION}{zone}")
            for number, zone in enumerate("abab")
        ]
        ids = [subnet["Subnet"]["SubnetId"] for subnet in subnets]
        prometheus = ec2.create_security_group(GroupName="prometheus", Description="scrapes", VpcId=vpc)["GroupId"]
        certificate = client("acm").request_certificate(DomainName="api.example.com")["CertificateArn"]
        self.parameters = {
            "Vpc": vpc,
            "PublicSubnets": ",".join(ids[:2]),
            "TaskSubnets": ",".join(ids[2:]),
            "CertificateArn": certificate,
            "SupabaseUrl": "https://abcdefghijklmnopqrst.supabase.co",
            "MetricsSecurityGroup": prometheus,
            "AlarmEmail": "night@example.com",
            "MinTasks": "2",
            "AllowExec": "true",
        } | parameters
        self.values: dict[str, Any] = (
            {name: entry.get("Default") for name, entry in TEMPLATE["Parameters"].items()}
            | self.parameters
            | {"PublicSubnets": ids[:2], "TaskSubnets": ids[2:], "AWS::StackName": "portfolio", "AWS::Region": REGION}
        )
        self.conditions = dict.fromkeys(TEMPLATE["Conditions"], True)
        self.created: dict[str, str] = {}

    def create(self) -> None:
        """Create the secret and Redis, the stack, then the resources that refer to the stack."""
        self._by_api("Secret", SecretString='{"redis_password": "0123456789abcdef"}', GenerateSecretString=None)
        for name in ("RedisSubnets", "RedisDefaultUser", "RedisUser"):
            self._by_api(name)
        self.values |= {"RedisUsers": "portfolio-users", "RedisParameters": "portfolio-redis"}  # unknown to moto
        self.values["RedisGroup.GroupId"] = client("ec2").create_security_group(
            GroupName="redis", Description="placeholder until the stack creates it", VpcId=self.values["Vpc"]
        )["GroupId"]
        redis = self._by_api("Redis", ReplicationGroupId="portfolio-redis")["ReplicationGroup"]
        endpoint = redis["NodeGroups"][0]["PrimaryEndpoint"]
        self.values["Redis.PrimaryEndPoint.Address"] = endpoint["Address"]
        self.values["Redis.PrimaryEndPoint.Port"] = str(endpoint["Port"])
        self._create_stack()
        later = [name for name, entry in RESOURCES.items() if entry["Type"] in BY_API and name not in self.created]
        for name in sorted(later, key=[*RESOURCES].index):
            self._by_api(name)

    def _create_stack(self) -> None:
        cloudformation = client("cloudformation")
        cloudformation.create_stack(
            StackName="portfolio",
            TemplateBody=json.dumps(self._reduced()),
            Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in self.parameters.items()],
            Capabilities=["CAPABILITY_IAM"],
        )
        for resource in cloudformation.describe_stack_resources(StackName="portfolio")["StackResources"]:
            name, physical = resource["LogicalResourceId"], resource.get("PhysicalResourceId", "")
            assert resource["ResourceStatus"] == "CREATE_COMPLETE", name
            self.values[name] = physical
            self.created[name] = resource["ResourceType"]
        outputs = cloudformation.describe_stacks(StackName="portfolio")["Stacks"][0]["Outputs"]
        self.values |= {entry["OutputKey"].replace("DOT", "."): entry["OutputValue"] for entry in outputs}
        for name in ("LoadBalancer", "TargetGroup"):
            self.values[f"{name}.{name}FullName"] = self.values[name].rpartition(":")[2]

    def _reduced(self) -> dict[str, Any]:
        """Return the template with only the types that moto creates from it.

        Its outputs are the attributes to which resources of the full template refer.
        """
        kept = {name: entry for name, entry in RESOURCES.items() if known_to_cloudformation(entry["Type"])}
        asked = {name for entry in RESOURCES.values() for name in references(entry) if name.split(".")[0] in kept}
        outputs = {
            name.replace(".", "DOT"): {"Value": {"Fn::GetAtt": name.split(".", 1)}}
            for name in asked
            if "." in name and not name.endswith("FullName")  # moto does not support these attributes
        }
        for entry in kept.values():
            entry = entry.get("DependsOn", [])
            entry[:] = [name for name in entry if name in kept]
        reduced: dict[str, Any] = self._filled({**TEMPLATE, "Resources": kept, "Outputs": outputs})
        return reduced

    def _filled(self, part: Any) -> Any:
        """Return the part with the names of created resources in place of references."""
        there = {name for name in self.values if name.split(".")[0] in RESOURCES} - {"RedisGroup.GroupId"}
        if isinstance(part, list):
            return [self._filled(entry) for entry in part]
        if not isinstance(part, dict):
            return part
        match part:
            case {"Ref": name} if name in there:
                return self.values[name]
            case {"Fn::GetAtt": name} if ".".join(name) in there:
                return self.values[".".join(name)]
            case {"Fn::Sub": text}:
                for name in there:
                    text = text.replace(f"${{{name}}}", str(self.values[name]))
                return {"Fn::Sub": text}
        return {key: self._filled(value) for key, value in part.items()}

    def _by_api(self, name: str, **parameters: Any) -> Any:
        kind = RESOURCES[name]["Type"]
        service, call = BY_API[kind]
        properties = evaluated(RESOURCES[name].get("Properties", {}), self.values, self.conditions)
        properties = {key: value for key, value in (properties | parameters).items() if value is not None}
        answer = getattr(client(service), call)(**_as_parameters(kind, name, properties))
        self.created[name] = kind
        self.values[name] = next(
            (answer[key] for key in ("ARN", "PolicyARN", "SubscriptionArn", "UserId") if key in answer),
            f"portfolio-{name}",
        )
        return answer


def _as_parameters(kind: str, name: str, properties: dict[str, Any]) -> dict[str, Any]:
    """Return the properties in the form that the call expects; for some types it differs from the template's form."""
    match kind.rpartition("::")[2]:
        case "Alarm":
            return {"AlarmName": f"portfolio-{name}", **properties}
        case "MetricFilter":
            transformations = [
                {key[0].lower() + key[1:]: value for key, value in each.items()}
                for each in properties["MetricTransformations"]
            ]
            for each in transformations:
                if "dimensions" in each:
                    each["dimensions"] = {entry["Key"]: entry["Value"] for entry in each["dimensions"]}
            return {
                "logGroupName": properties["LogGroupName"],
                "filterName": f"portfolio-{name}",
                "filterPattern": properties["FilterPattern"],
                "metricTransformations": transformations,
            }
        case "SecurityGroupEgress":
            pair = {"GroupId": properties["DestinationSecurityGroupId"], "Description": properties["Description"]}
            ports = {key: properties[key] for key in ("IpProtocol", "FromPort", "ToPort")}
            return {"GroupId": properties["GroupId"], "IpPermissions": [{**ports, "UserIdGroupPairs": [pair]}]}
        case "SubnetGroup":
            return {
                "CacheSubnetGroupName": "portfolio-redis",
                "CacheSubnetGroupDescription": properties["Description"],
                "SubnetIds": properties["SubnetIds"],
            }
        case "Secret":
            return {"Name": "portfolio-api", **properties}
        case "ScalableTarget":
            capacities = {key: int(properties[key]) for key in ("MinCapacity", "MaxCapacity")}
            return properties | capacities
        case "ScalingPolicy":
            target = evaluated(RESOURCES["ScalableTarget"]["Properties"], _Names(), {})
            properties = {key: value for key, value in properties.items() if key != "ScalingTargetId"}
            return properties | {key: target[key] for key in ("ServiceNamespace", "ScalableDimension", "ResourceId")}
    return properties


class _Names(dict[str, str]):
    """The names of the service and of its cluster; every other name has the value "0"."""

    def __missing__(self, name: str) -> str:
        return {"Cluster": "production", "Service.Name": "api-service"}.get(name, "0")
