"""Tests of the CloudFormation stack with cfn-lint and moto, and of compose.yaml with its schema (`make aws`)."""
