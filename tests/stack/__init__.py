"""Tests of the CloudFormation stack with cfn-lint and moto (`make aws`)."""
