output "storage" {
  description = "COLDDIFF_STORAGE of jobs."
  value       = "s3://${aws_s3_bucket.storage.id}/${var.prefix}"
}

output "worker_policy" {
  description = "What workers may do, as JSON."
  value       = data.aws_iam_policy_document.worker.json
}

output "head_policy" {
  description = "What the head may do, as JSON."
  value       = data.aws_iam_policy_document.head.json
}

output "submitter_policy" {
  description = "What a person who submits may do, as JSON."
  value       = data.aws_iam_policy_document.submitter.json
}
