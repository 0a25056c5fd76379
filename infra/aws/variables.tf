variable "region" {
  description = "Region of the bucket and of the cluster, which should be the same: traffic within one is free."
  type        = string
  default     = "us-west-2"
}

variable "bucket" {
  description = "Name of the bucket of STORAGE, unique in all of AWS."
  type        = string
}

variable "prefix" {
  description = "Where in the bucket STORAGE is: COLDDIFF_STORAGE is s3://BUCKET/PREFIX."
  type        = string
  default     = "colddiff"
}

variable "monthly_budget_usd" {
  description = "At 80 % of it, and where it is forecast to be passed, budget_email is told. Nothing is stopped."
  type        = number
  default     = 500
}

variable "budget_email" {
  description = "Who is told about the budget; empty: no budget."
  type        = string
  default     = ""
}

variable "eks_oidc_provider" {
  description = "Issuer of an EKS cluster without https://, for infra/kuberay; empty: roles for EC2 alone."
  type        = string
  default     = ""
}

variable "submitters" {
  description = "ARNs of the users or roles that may assume the submitter's role."
  type        = list(string)
  default     = []
}
