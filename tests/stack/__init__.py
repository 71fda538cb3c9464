"""The CloudFormation stack before cfn-lint and moto (`make aws`)."""
