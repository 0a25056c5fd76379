terraform {
  required_version = ">= 1.5"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.50, < 7.0"
    }
  }
}

provider "aws" {
  region = var.region
  default_tags {
    # Costs are found by it, here and in cluster.yaml.
    tags = { project = "colddiff" }
  }
}

data "aws_caller_identity" "current" {}
