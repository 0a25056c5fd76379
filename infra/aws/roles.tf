# Three roles. Each policy can also be copied by hand: `terraform output -raw worker_policy`.

locals {
  objects = "${aws_s3_bucket.storage.arn}/${var.prefix}/*"
  jobs    = "${aws_s3_bucket.storage.arn}/${var.prefix}/jobs/*"
  probes  = "${aws_s3_bucket.storage.arn}/${var.prefix}/probes/*"
  data    = "${aws_s3_bucket.storage.arn}/${var.prefix}/data/*"
  eks     = var.eks_oidc_provider != ""
  account = data.aws_caller_identity.current.account_id
}

# What a worker does: read data, write checkpoints and samples, delete checkpoints beyond `keep`, and
# probe before the first step that STORAGE is writable.
data "aws_iam_policy_document" "worker" {
  statement {
    sid       = "ReadAndWriteStorage"
    actions   = ["s3:GetObject", "s3:PutObject"]
    resources = [local.objects]
  }
  statement {
    sid       = "DeleteInJobs"
    actions   = ["s3:DeleteObject"]
    resources = [local.jobs, local.probes]
  }
  statement {
    # Without it a missing object answers 403 like a forbidden one. No condition on s3:prefix:
    # HeadBucket has none, and would be refused.
    sid       = "TellMissingFromForbidden"
    actions   = ["s3:ListBucket"]
    resources = [aws_s3_bucket.storage.arn]
  }
}

# The head runs the drivers of jobs, which do in STORAGE what workers do, and Ray's autoscaler.
data "aws_iam_policy_document" "head" {
  source_policy_documents = [data.aws_iam_policy_document.worker.json]
  statement {
    sid = "SeeMachines"
    actions = [
      "ec2:DescribeAvailabilityZones",
      "ec2:DescribeImages",
      "ec2:DescribeInstances",
      "ec2:DescribeInstanceStatus",
      "ec2:DescribeInstanceTypes",
      "ec2:DescribeKeyPairs",
      "ec2:DescribeSecurityGroups",
      "ec2:DescribeSubnets",
      "ec2:DescribeVpcs",
    ]
    resources = ["*"] # these calls know no resource
  }
  statement {
    sid     = "StartMachines"
    actions = ["ec2:RunInstances"]
    resources = [
      "arn:aws:ec2:${var.region}::image/*",
      "arn:aws:ec2:${var.region}:${local.account}:instance/*",
      "arn:aws:ec2:${var.region}:${local.account}:key-pair/*",
      "arn:aws:ec2:${var.region}:${local.account}:network-interface/*",
      "arn:aws:ec2:${var.region}:${local.account}:security-group/*",
      "arn:aws:ec2:${var.region}:${local.account}:subnet/*",
      "arn:aws:ec2:${var.region}:${local.account}:volume/*",
    ]
  }
  statement {
    sid       = "TagMachinesAsTheyStart"
    actions   = ["ec2:CreateTags"]
    resources = ["arn:aws:ec2:${var.region}:${local.account}:*/*"]
    condition {
      test     = "StringEquals"
      variable = "ec2:CreateAction"
      values   = ["RunInstances"]
    }
  }
  statement {
    sid       = "EndAndTagMachinesOfThisCluster"
    actions   = ["ec2:TerminateInstances", "ec2:StopInstances", "ec2:CreateTags"]
    resources = ["arn:aws:ec2:${var.region}:${local.account}:instance/*"]
    condition {
      test     = "StringEquals"
      variable = "aws:ResourceTag/project"
      values   = ["colddiff"]
    }
  }
  statement {
    # Workers get the worker's role, and no other.
    sid       = "GiveWorkersTheirRole"
    actions   = ["iam:PassRole"]
    resources = [aws_iam_role.worker.arn]
    condition {
      test     = "StringEquals"
      variable = "iam:PassedToService"
      values   = ["ec2.amazonaws.com"]
    }
  }
}

# Nodes pull the project's image.
data "aws_iam_policy_document" "image" {
  statement {
    sid       = "LogInToTheRegistry"
    actions   = ["ecr:GetAuthorizationToken"]
    resources = ["*"] # knows no resource
  }
  statement {
    sid       = "PullTheImage"
    actions   = ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
    resources = ["arn:aws:ecr:${var.region}:${local.account}:repository/colddiff"]
  }
}

# A person's machine: packs data, submits, follows, stops and deletes jobs.
data "aws_iam_policy_document" "submitter" {
  source_policy_documents = [data.aws_iam_policy_document.worker.json]
  statement {
    sid       = "ReleaseThePlaceOfDataBeingPacked"
    actions   = ["s3:DeleteObject"]
    resources = [local.data]
  }
}

data "aws_iam_policy_document" "assumed_by_nodes" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["ec2.amazonaws.com"]
    }
  }
  dynamic "statement" {
    for_each = local.eks ? [1] : []
    content {
      actions = ["sts:AssumeRoleWithWebIdentity"]
      principals {
        type        = "Federated"
        identifiers = ["arn:aws:iam::${local.account}:oidc-provider/${var.eks_oidc_provider}"]
      }
      condition {
        test     = "StringEquals"
        variable = "${var.eks_oidc_provider}:sub"
        values = [
          "system:serviceaccount:colddiff:colddiff-head",
          "system:serviceaccount:colddiff:colddiff-worker",
        ]
      }
    }
  }
}

data "aws_iam_policy_document" "assumed_by_submitters" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "AWS"
      identifiers = length(var.submitters) > 0 ? var.submitters : ["arn:aws:iam::${local.account}:root"]
    }
  }
}

resource "aws_iam_role" "worker" {
  name               = "colddiff-worker"
  assume_role_policy = data.aws_iam_policy_document.assumed_by_nodes.json
}

resource "aws_iam_role" "head" {
  name               = "colddiff-head"
  assume_role_policy = data.aws_iam_policy_document.assumed_by_nodes.json
}

resource "aws_iam_role" "submitter" {
  name               = "colddiff-submitter"
  assume_role_policy = data.aws_iam_policy_document.assumed_by_submitters.json
}

resource "aws_iam_role_policy" "worker" {
  role   = aws_iam_role.worker.name
  name   = "storage"
  policy = data.aws_iam_policy_document.worker.json
}

resource "aws_iam_role_policy" "head" {
  role   = aws_iam_role.head.name
  name   = "storage-and-machines"
  policy = data.aws_iam_policy_document.head.json
}

resource "aws_iam_role_policy" "submitter" {
  role   = aws_iam_role.submitter.name
  name   = "storage"
  policy = data.aws_iam_policy_document.submitter.json
}

resource "aws_iam_role_policy" "image" {
  for_each = toset([aws_iam_role.head.name, aws_iam_role.worker.name])
  role     = each.value
  name     = "image"
  policy   = data.aws_iam_policy_document.image.json
}

resource "aws_iam_instance_profile" "worker" {
  name = "colddiff-worker"
  role = aws_iam_role.worker.name
}

resource "aws_iam_instance_profile" "head" {
  name = "colddiff-head"
  role = aws_iam_role.head.name
}
